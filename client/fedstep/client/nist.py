"""Where NIST's Special Database 19 is: the handwriting that FEMNIST is made of.

NIST publishes no checksums. These are the ones on which several independent public loaders of FEMNIST agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass

HOME = "https://s3.amazonaws.com/nist-srd/SD19/"


@dataclass(frozen=True)
class Archive:
    """One of its archives.

    Attributes:
        file: Its name.
        md5: Its checksum.
    """

    file: str
    md5: str


ARCHIVES: Mapping[str, Archive] = {
    "by_write": Archive("by_write.zip", "a29f21babf83db0bb28a2f77b2b456cb"),
    "by_class": Archive("by_class.zip", "79572b1694a8506f2b722c7be54130c4"),
}
"""By writer, and by character: LEAF's script takes whose an image is from the one and what it is from the other."""
