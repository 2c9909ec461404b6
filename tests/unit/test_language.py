"""The verifier has learned English only, and says so of other texts."""

import pytest

from service.cache.wording.language import foreign
from service.verifiers.crossencoder import CrossEncoder
from service.wiring import Loaded


@pytest.mark.parametrize(
    "text",
    [
        "¿Cómo desactivo la verificación en dos pasos?",
        "Ich kann mich nicht anmelden",
        "Comment puis-je annuler ma commande ?",
        "Come posso disdire il mio abbonamento?",
        "como cancelo una suscripción",
        "Hoe kan ik mijn wachtwoord wijzigen",
        "如何启用双重验证",
        "Как отключить уведомления?",
        "كيف يمكنني إلغاء الطلب",
    ],
)
def test_other_languages_are_seen(text: str) -> None:
    assert foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        "flights los angeles to las vegas",
        "des moines weather",
        "café near me",
        "what does je ne sais quoi mean",
        "translate 'wo ist der Bahnhof' for me",
        "reset 2FA",
        "convert 5 µm to mm",
        "Beyoncé tickets Köln",
        "SELECT name FROM users WHERE age > 30",
        "12 + 30",
        "",
    ],
)
def test_english_passes_with_foreign_names_and_words_in_it(text: str) -> None:
    assert not foreign(text)


def test_the_verifier_does_not_judge_what_it_has_not_learned(models: Loaded) -> None:
    assert isinstance(models.verifier, CrossEncoder)
    spanish = "¿Cómo activo la verificación?", "¿Cómo desactivo la verificación?"
    scores = models.verifier.run([spanish, ("how do i enable 2fa", "how can i enable 2fa")])
    assert scores[0] is None
    assert scores[1] is not None
