"""The forms that measurements come in, by the names that tasks use."""

from invdiff.forms import ct, jpeg, mri, phase, photo, sensing
from invdiff.forms.base import Form

FORMS: dict[str, Form] = {
    "photo": Form(photo.read, photo.make),
    "jpeg": Form(jpeg.read, jpeg.make),
    "phase": Form(phase.read, phase.make),
    "sensing": Form(sensing.read, sensing.make),
    "mri": Form(mri.read, mri.make),
    "ct": Form(ct.read, ct.make),
}
