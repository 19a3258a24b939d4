"""The errors a user can cause. Each message is one line that names the input and what was expected of it."""


class HybridDepthError(Exception):
    """Base of every error that the command line and the nodes report as the user's, without a traceback."""


class StackError(HybridDepthError):
    """A focal stack that cannot be read or used."""


class RegistrationError(StackError):
    """Too few slices of a stack could be registered to estimate depth from them."""


class CameraError(HybridDepthError):
    """A camera or lens that is missing, refuses a setting, or stopped delivering."""


class CameraEnded(CameraError):  # noqa: N818 - it says what happened, and a recording has an end
    """A camera that shows a recording once has shown it; opened again it begins anew."""


class LensError(CameraError):
    """A focus lens that cannot be found, does not answer, or is outside its limits."""


class CalibrationError(HybridDepthError):
    """Pictures or measurements that no trustworthy calibration can be made of."""


class ModelError(HybridDepthError):
    """An unknown model, or one that cannot run as asked."""


class WeightsError(ModelError):
    """Weights that are missing, of the wrong kind, or damaged."""


class ParameterError(HybridDepthError):
    """A parameter, or a parameter file, that cannot be applied."""


class DatasetError(HybridDepthError):
    """A data set, a ground truth or a protocol that cannot be read or used for an evaluation."""


class OutputError(HybridDepthError):
    """A result that cannot be written where it was asked for."""


class MessageError(HybridDepthError):
    """A ROS message that cannot be used: a wrong encoding, step or size, or a focus that is no number."""


def one_line(error: BaseException) -> str:
    """What an error of a library says, on one line that can stand within another."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
