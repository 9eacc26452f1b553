"""A teacher sees its own normalisation, whatever the student's."""

from dataclasses import replace

import torch

import longtail
from longtail.augment import Normalize
from longtail.networks import Renormalise
from longtail.request import Task

OURS, THEIRS = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), ((0.1, 0.2, 0.3), (1.0, 0.5, 0.25))


def test_images_of_one_normalisation_become_those_of_another():
    pixels = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
    ours, theirs = Normalize(*OURS)(pixels), Normalize(*THEIRS)(pixels)
    torch.testing.assert_close(Renormalise(OURS, THEIRS)(ours), theirs, atol=1e-5, rtol=1e-5)
    assert not Renormalise(OURS, THEIRS).state_dict()


def test_a_teacher_answers_alike_on_images_of_any_normalisation(digits, plain_run, tmp_path):
    run = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    own = Task.of(digits)
    other = replace(own, mean=(0.1,), std=(2.0,))
    pixels = digits.test.images[:8]
    alike = run.teacher()(Normalize(own.mean, own.std)(pixels))
    assert torch.equal(alike, run.teacher(own)(Normalize(own.mean, own.std)(pixels)))
    torch.testing.assert_close(
        run.teacher(other)(Normalize(other.mean, other.std)(pixels)), alike, atol=1e-4, rtol=1e-4
    )
