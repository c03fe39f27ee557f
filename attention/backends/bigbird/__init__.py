"""BigBird: blocks of a window, random ones and global ones."""

from attention.backends.bigbird.attention import BigBirdAttention as BigBirdAttention
