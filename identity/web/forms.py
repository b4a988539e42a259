"""The forms of operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.utils.translation import gettext_lazy as _

from identity.models import UnifiedUser
from identity.operators import NewPerson, check_new_person, platforms_left

if TYPE_CHECKING:
    PersonModelForm = forms.ModelForm[UnifiedUser]
else:
    PersonModelForm = forms.ModelForm


class PersonForm(PersonModelForm):
    """A new person, or a new name for one. The id never changes, so that no person is mistaken for another."""

    class Meta:
        model = UnifiedUser
        fields = ("unified_user_id", "display_name")
        labels = {"unified_user_id": _("unified id")}
        help_texts = {
            "unified_user_id": _("For example alice. You can't change it later. No spaces, no “:”."),
            "display_name": _("A name for the person. You can change it later."),
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        unified_user_id = cleaned.get("unified_user_id", self.instance.unified_user_id)
        if unified_user_id and "display_name" in cleaned:
            try:
                check_new_person(NewPerson(unified_user_id, cleaned["display_name"]))
            except ValueError as error:
                raise forms.ValidationError(str(error)) from error
        return cleaned


class PairForm(forms.Form):
    """The platform of a person's next account."""

    platform = forms.ChoiceField(required=False, label=_("Platform"))

    def __init__(self, person: UnifiedUser, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        field = cast("forms.ChoiceField", self.fields["platform"])
        field.choices = [("", _("any")), *platforms_left(person).items()]


class NumberForm(forms.Form):
    """The number that a person reads out."""

    number = forms.CharField(
        label=_("Number"),
        max_length=40,
        widget=forms.TextInput(attrs={"autocomplete": "off", "inputmode": "numeric", "size": "10"}),
    )


class PeopleFileForm(forms.Form):
    """An uploaded file of people."""

    file = forms.FileField(label=_("CSV file"), widget=forms.FileInput(attrs={"accept": ".csv,text/csv"}))
