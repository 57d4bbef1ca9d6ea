"""The networks, as Keras models, and how they are trained."""

import numpy as np
import tensorflow as tf
from tf_keras import Model, Sequential, callbacks, losses, optimizers
from tf_keras import layers as L


def fit(build, x, y, epochs, seed, loss=None, rate=3e-3, batch=64):
    """Builds and trains a network; the learning rate falls to zero. One seed gives one model on one machine."""
    tf.keras.utils.set_random_seed(seed)
    model = build()
    steps = epochs * -(-len(x) // batch)
    schedule = optimizers.schedules.CosineDecay(rate, steps)
    loss = loss or losses.SparseCategoricalCrossentropy()
    model.compile(optimizers.Adam(schedule), loss)
    model.fit(x, y, batch, epochs, verbose=0, callbacks=[callbacks.TerminateOnNaN()])
    return model


def keyword_dscnn():
    """Depthwise-separable CNN, as is usual for keyword spotting, for 49x10 spectrograms."""
    layers = [L.Input((49, 10, 1)), L.Conv2D(20, (10, 4), (2, 2), "same", use_bias=False)]
    layers += [L.BatchNormalization(), L.ReLU()]
    for _ in range(3):
        layers += [L.DepthwiseConv2D(3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()]
        layers += [L.Conv2D(20, 1, use_bias=False), L.BatchNormalization(), L.ReLU()]
    layers += [L.AveragePooling2D((25, 5)), L.Flatten(), L.Dense(8), L.Softmax()]
    return Sequential(layers)


def digits_resnet():
    """Residual CNN with two blocks, the second with a strided shortcut."""

    def convolution(x, channels, size, stride=1):
        x = L.Conv2D(channels, size, stride, "same", use_bias=False)(x)
        return L.BatchNormalization()(x)

    image = L.Input((8, 8, 1))
    x = L.ReLU()(convolution(image, 12, 3))
    y = convolution(L.ReLU()(convolution(x, 12, 3)), 12, 3)
    x = L.ReLU()(L.Add()([x, y]))
    y = convolution(L.ReLU()(convolution(x, 20, 3, 2)), 20, 3)
    x = L.ReLU()(L.Add()([convolution(x, 20, 1, 2), y]))
    x = L.Dense(10)(L.Flatten()(L.AveragePooling2D(4)(x)))
    return Model(image, L.Softmax()(x))


def shapes_mobilenet():
    """MobileNet v1 at a tiny width for 48x48 gray images, two classes."""
    layers = [L.Input((48, 48, 1)), L.Conv2D(8, 3, 2, "same", use_bias=False), L.BatchNormalization(), L.ReLU(6)]
    for stride, channels in ((1, 12), (2, 16), (1, 16), (2, 24), (1, 24), (2, 32), (1, 32)):
        layers += [L.DepthwiseConv2D(3, stride, "same", use_bias=False), L.BatchNormalization(), L.ReLU(6)]
        layers += [L.Conv2D(channels, 1, use_bias=False), L.BatchNormalization(), L.ReLU(6)]
    layers += [L.AveragePooling2D(3), L.Conv2D(2, 1), L.Reshape((2,)), L.Softmax()]
    return Sequential(layers)


def vibration_autoencoder():
    """Fully connected autoencoder for spectra of 64 bins; a large reconstruction error means a fault."""
    layers = [L.Input((64,))]
    for units in (32, 16, 6, 16, 32):
        layers += [L.Dense(units, "relu")]
    return Sequential([*layers, L.Dense(64)])


def digits_lstm():
    """Reads a digit row by row."""
    layers = [L.Input((8, 8, 1)), L.Reshape((8, 8)), L.LSTM(16, return_sequences=True)]
    return Sequential([*layers, L.Flatten(), L.Dense(10), L.Softmax()])


def digits_cnn():
    """Plain CNN, the common source of the float32, float16, hybrid, int16 and uint8 models."""
    return Sequential(
        [
            L.Input((8, 8, 1)),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.MaxPooling2D(2),
            L.Conv2D(16, 3, padding="same", activation="relu"),
            L.DepthwiseConv2D(3, activation="relu"),
            L.Flatten(),
            L.Dense(10),
            L.Softmax(),
        ]
    )


def streaming_cnn():
    """Causal CNN over frames of 10 bands: one row of class scores per frame, meant to be averaged over time."""
    layers = [L.Input((None, 1, 10)), L.Conv2D(16, (4, 1), activation="relu"), L.DepthwiseConv2D((8, 1))]
    layers += [L.ReLU(), L.Conv2D(16, 1, activation="relu"), L.Conv2D(8, 1)]
    return Sequential(layers)


class Svdf(L.Layer):
    """Singular value decomposition filter: each unit sums `rank` pairs of a filter over bands and one over frames."""

    def __init__(self, units, rank, memory):
        super().__init__()
        self.units, self.rank, self.memory = units, rank, memory

    def build(self, shape):
        filters = self.units * self.rank
        self.feature = self.add_weight("feature", (shape[-1], filters), initializer="glorot_uniform")
        self.time = self.add_weight("time", (self.memory, 1, filters, 1), initializer="glorot_uniform")
        self.bias = self.add_weight("bias", (self.units,), initializer="zeros")

    def call(self, x):
        frames = tf.pad(tf.matmul(x, self.feature), [[0, 0], [self.memory - 1, 0], [0, 0]])
        over_time = tf.nn.depthwise_conv2d(frames[:, :, None, :], self.time, [1, 1, 1, 1], "VALID")[:, :, 0]
        units = tf.reshape(over_time, (tf.shape(x)[0], -1, self.units, self.rank))
        return tf.nn.relu(tf.reduce_sum(units, -1) + self.bias)


def keyword_svdf():
    """SVDF layer and a classifier on each frame of 10 bands."""
    return Sequential([L.Input((49, 10)), Svdf(24, 2, 16), L.Dense(8)])


def mean_over_time(y_true, scores):
    """Cross entropy of the class scores averaged over the frames."""
    scores = tf.reshape(scores, (tf.shape(scores)[0], -1, 8))
    return losses.sparse_categorical_crossentropy(y_true, tf.reduce_mean(scores, 1), from_logits=True)


class StreamingModule(tf.Module):
    """streaming_cnn() with its past frames in variables: one frame in, one row of class scores out."""

    def __init__(self, trained):
        super().__init__()
        weights = trained.get_weights()
        self.first, self.bias1, self.depthwise, self.bias2, self.third, self.bias3, self.last, self.bias4 = (
            tf.Variable(np.asarray(w)) for w in weights
        )
        self.frames = tf.Variable(tf.zeros((1, 3, 1, 10)), trainable=False)
        self.features = tf.Variable(tf.zeros((1, 7, 1, 16)), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([1, 1, 10], tf.float32, name="frame")])
    def step(self, frame):
        window = tf.concat([self.frames, tf.reshape(frame, (1, 1, 1, 10))], 1)
        self.frames.assign(window[:, 1:])
        x = tf.nn.relu(tf.nn.conv2d(window, self.first, 1, "VALID") + self.bias1)
        window = tf.concat([self.features, x], 1)
        self.features.assign(window[:, 1:])
        x = tf.nn.relu(tf.nn.depthwise_conv2d(window, self.depthwise, [1, 1, 1, 1], "VALID") + self.bias2)
        x = tf.nn.relu(tf.nn.conv2d(x, self.third, 1, "VALID") + self.bias3)
        x = tf.nn.conv2d(x, self.last, 1, "VALID") + self.bias4
        return tf.reshape(x, (1, 8))
