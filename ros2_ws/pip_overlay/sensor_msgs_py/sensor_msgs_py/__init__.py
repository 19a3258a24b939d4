"""Point clouds to and from numpy, with the names and results of ROS's sensor_msgs_py.

Built only where ROS comes from PyPI, which has no sensor_msgs_py; what differs on purpose stands in
`point_cloud2`.
"""

PIP_OVERLAY = True  # tells this stand-in from the real package
