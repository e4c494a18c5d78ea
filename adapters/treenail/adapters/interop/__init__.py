"""Pieces that fit Treenail's into other frameworks; each is a module of its own, which needs that framework."""
