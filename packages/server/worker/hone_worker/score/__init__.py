"""Reward models: sequence classifiers that score conversations."""
