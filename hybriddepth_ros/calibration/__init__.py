"""What a camera's moving focus means, measured: each step is a file of plain functions on arrays.

A step has a function that takes its pictures with an image source and a lens, and one that works on what was
taken, so that a folder of images gives the same result as the camera did.
"""
