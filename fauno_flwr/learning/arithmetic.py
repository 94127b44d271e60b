"""Products and tanh for compiled code that runs small networks, in float32.

Each loop over units is the innermost one, over contiguous memory, and adds up nothing: the compiler
computes many units at once and the results do not depend on how many.
"""

import numpy as np

from sim_env.engine.compilation import part

LARGEST = np.float32(7.90531110763549805)  # whose tanh is 1 in float32
TANH_TOP = tuple(
    map(
        np.float32,
        (
            4.89352455891786e-03,
            6.37261928875436e-04,
            1.48572235717979e-05,
            5.12229709037114e-08,
            -8.60467152213735e-11,
            2.00018790482477e-13,
            -2.76076847742355e-16,
        ),
    )
)
TANH_BOTTOM = tuple(
    map(
        np.float32,
        (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06),
    )
)


@part
def tanh(x):
    """Take the tanh of float32 numbers in place, to 4e-7.

    Eigen's rational approximation: the compiler computes many at once, whereas the C library's tanh
    takes most of the time of a rollout.
    """
    for i in range(len(x)):
        v = x[i]
        v = LARGEST if v > LARGEST else v
        v = -LARGEST if v < -LARGEST else v
        square = v * v
        top = TANH_TOP[6]
        for k in range(5, -1, -1):
            top = top * square + TANH_TOP[k]
        bottom = TANH_BOTTOM[3]
        for k in range(2, -1, -1):
            bottom = bottom * square + TANH_BOTTOM[k]
        x[i] = v * top / bottom


@part
def add_product(x, weight, total):
    """Add ``x @ weight`` to `total`."""
    width = len(total)
    whole = len(x) - len(x) % 4
    for g in range(0, whole, 4):  # four rows for each time that the total is loaded and stored
        x0, x1, x2, x3 = x[g], x[g + 1], x[g + 2], x[g + 3]
        w0, w1, w2, w3 = weight[g], weight[g + 1], weight[g + 2], weight[g + 3]
        for h in range(width):
            total[h] += (x0 * w0[h] + x1 * w1[h]) + (x2 * w2[h] + x3 * w3[h])
    for g in range(whole, len(x)):
        value, row = x[g], weight[g]
        for h in range(width):
            total[h] += value * row[h]


@part
def add_two_products(x, y, weight, of_x, of_y):
    """Add ``x @ weight`` to `of_x` and ``y @ weight`` to `of_y`, as :func:`add_product` would.

    Each part of the weights is loaded once for both, which takes two thirds of the time.
    """
    width = len(of_x)
    whole = len(x) - len(x) % 4
    for g in range(0, whole, 4):
        x0, x1, x2, x3 = x[g], x[g + 1], x[g + 2], x[g + 3]
        y0, y1, y2, y3 = y[g], y[g + 1], y[g + 2], y[g + 3]
        w0, w1, w2, w3 = weight[g], weight[g + 1], weight[g + 2], weight[g + 3]
        for h in range(width):
            a, b, c, d = w0[h], w1[h], w2[h], w3[h]
            of_x[h] += (x0 * a + x1 * b) + (x2 * c + x3 * d)
            of_y[h] += (y0 * a + y1 * b) + (y2 * c + y3 * d)
    for g in range(whole, len(x)):
        x0, y0, row = x[g], y[g], weight[g]
        for h in range(width):
            of_x[h] += x0 * row[h]
            of_y[h] += y0 * row[h]


@part
def add_products(x, weight, total, rows):
    """Add ``x[:rows] @ weight`` to ``total[:rows]``."""
    for r in range(0, rows - 1, 2):
        add_two_products(x[r], x[r + 1], weight, total[r], total[r + 1])
    if rows % 2:
        add_product(x[rows - 1], weight, total[rows - 1])


@part
def add_outer(x, y, rows, total):
    """Add ``x[:rows].T @ y[:rows]`` to `total`."""
    inputs, width = total.shape
    whole, pairs = rows - rows % 4, inputs - inputs % 2
    for r in range(0, whole, 4):
        x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
        y0, y1, y2, y3 = y[r], y[r + 1], y[r + 2], y[r + 3]
        for i in range(0, pairs, 2):  # two inputs for each time that y is loaded
            a, b, c, d, row = x0[i], x1[i], x2[i], x3[i], total[i]
            e, f, g, k, after = x0[i + 1], x1[i + 1], x2[i + 1], x3[i + 1], total[i + 1]
            for h in range(width):
                s, t, u, v = y0[h], y1[h], y2[h], y3[h]
                row[h] += (a * s + b * t) + (c * u + d * v)
                after[h] += (e * s + f * t) + (g * u + k * v)
        for i in range(pairs, inputs):
            a, b, c, d, row = x0[i], x1[i], x2[i], x3[i], total[i]
            for h in range(width):
                row[h] += (a * y0[h] + b * y1[h]) + (c * y2[h] + d * y3[h])
    for r in range(whole, rows):
        for i in range(inputs):
            value, row = x[r, i], total[i]
            for h in range(width):
                row[h] += value * y[r, h]


@part
def copy(x, to):
    """Copy a vector: an assignment of slices would need memory."""
    for i in range(len(x)):
        to[i] = x[i]


@part
def dot(x, y):
    """Compute the scalar product of two vectors, in four sums that do not wait for each other."""
    a = b = c = d = np.float32(0)
    whole = len(x) - len(x) % 4
    for i in range(0, whole, 4):
        a += x[i] * y[i]
        b += x[i + 1] * y[i + 1]
        c += x[i + 2] * y[i + 2]
        d += x[i + 3] * y[i + 3]
    for i in range(whole, len(x)):
        a += x[i] * y[i]
    return (a + b) + (c + d)
