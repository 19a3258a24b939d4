"""Devices that are not there, as their drivers meet them: bytes on a pty, ioctls of a video device."""
