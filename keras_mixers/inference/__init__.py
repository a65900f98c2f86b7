"""Trained networks are loaded, predict and are evaluated; only to read a data set takes TensorFlow."""

from keras_mixers.inference.prediction import evaluate_images, load_trained, predict_images

__all__ = ["evaluate_images", "load_trained", "predict_images"]
