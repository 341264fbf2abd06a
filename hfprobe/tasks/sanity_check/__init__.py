"""Can the model overfit one batch?"""
