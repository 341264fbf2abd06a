"""Intervals, paired tests, imbalance and calibration; numpy and scipy only."""
