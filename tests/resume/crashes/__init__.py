"""Trainings that are disturbed in every way that loses data elsewhere, resumed, and compared with one that was left alone."""
