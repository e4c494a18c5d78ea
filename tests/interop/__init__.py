"""Samplers in the loaders and trainers that people have, each with the real package and real processes."""
