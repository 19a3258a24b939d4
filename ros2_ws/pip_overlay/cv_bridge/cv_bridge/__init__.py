"""numpy images to and from sensor_msgs/Image, with the names and results of ROS's own cv_bridge.

Built only where ROS comes from PyPI, which has no cv_bridge; pure Python over OpenCV. Where it differs on
purpose:

- planar YUV (nv12, nv21, nv24) works: the array holds all planes, the message's height is the image's;
- a step that is no multiple of the pixel is followed to the byte;
- data that is too short, a number type that ROS has no encoding for and a file that does not decode raise
  CvBridgeError, where upstream gives TypeError, KeyError and None;
- a compressed grey or alpha image converts to the encoding that was asked for.
"""

from cv_bridge.boost.cv_bridge_boost import cvtColor2, cvtColorForDisplay, getCvType
from cv_bridge.core import CvBridge, CvBridgeError

PIP_OVERLAY = True  # tells this stand-in from the real package

__all__ = ["PIP_OVERLAY", "CvBridge", "CvBridgeError", "cvtColor2", "cvtColorForDisplay", "getCvType"]
