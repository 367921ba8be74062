"""From textures to matrices: blocks in raster order, texels past the edge cut off."""

import numpy as np


def assemble(texels, rows, cols, width, height):
    """texels [blocks, height * width] of a matrix's blocks in raster order -> [rows, cols]."""
    down, across = -(-rows // height), -(-cols // width)
    image = texels.reshape(down, across, height, width).transpose(0, 2, 1, 3)
    return image.reshape(down * height, across * width)[:rows, :cols]


def signed(texel):
    """2 t - 1 in float32."""
    return np.float32(2.0) * texel.astype(np.float32) - np.float32(1.0)


def scaled(texels, scales, rows, cols, width, height):
    """w = scale (2 t - 1) of float32 texels."""
    image = assemble(signed(texels), rows, cols, width, height)
    return scales.reshape(rows, 1).astype(np.float32) * image
