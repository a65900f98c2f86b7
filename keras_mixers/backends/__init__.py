"""What is computed differently on each of Keras's backends: one contract, and one file per backend.

`contract.py` does everything in `keras.ops`, on any backend. The file of the backend that runs replaces those functions
that it has something better for. Callers write `backends.depthwise_native(...)` and never ask which backend runs.
"""

import keras

from keras_mixers.backends.contract import *

NAME = keras.backend.backend()  # for records and messages

if NAME == "jax":
    from keras_mixers.backends.jax import *
elif NAME == "tensorflow":
    from keras_mixers.backends.tensorflow import *
elif NAME == "torch":
    from keras_mixers.backends.torch import *
