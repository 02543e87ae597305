"""The train and the sample runs, behind `train.py` and `sample.py`."""
