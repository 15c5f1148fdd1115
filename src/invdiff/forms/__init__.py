"""The forms that measurements come in, by the names that tasks use."""

from invdiff.forms import jpeg, photo
from invdiff.forms.base import Form

FORMS: dict[str, Form] = {
    "photo": Form(photo.read, photo.make),
    "jpeg": Form(jpeg.read, jpeg.make),
}
