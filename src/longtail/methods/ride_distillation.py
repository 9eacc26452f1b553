"""RIDE's distillation: what a larger RIDE, or any other finished run, teaches the experts together."""

from __future__ import annotations

from torch import Tensor, nn

from longtail.losses import distillation_loss, soft_targets
from longtail.networks import Teacher
from longtail.types import Batch, Progress


class DistilledExperts(nn.Module):
    """L = L_experts + w T^2 KL(softmax(z_teacher / T) || softmax(mean_e z_e / T)) (Wang et al., RIDE, ICLR 2021).

    The teacher sees what the student sees, mixed images included, in evaluation mode.

    Args:
        objective: The experts' own loss, with ``loss(logits (E, B, C), batch)``.
        teacher: The trained model; its test-time logits are distilled.
        weight: Of the distillation; 1 in the configurations.
        temperature: T; 1.5 in the configurations.
        repeated: Count the whole sum once for each expert, as the official code's loop does: E times the gradient.

    Source: github.com/frank-xwang/RIDE-LongTailRecognition, model/loss.py.
    """

    def __init__(
        self, objective: nn.Module, teacher: Teacher, *, weight: float, temperature: float, repeated: bool
    ) -> None:
        super().__init__()
        self.objective = objective
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.repeated = repeated

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        batch = batches[0]
        return self.loss(network(batch.images), self.teacher(batch.images), batch)

    def loss(self, logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a batch's expert logits (E, B, C) and the teacher's logits (B, C)."""
        own: Tensor = self.objective.loss(logits, batch)  # type: ignore[operator]
        taught = distillation_loss(logits.mean(0), soft_targets(teacher_logits, self.temperature), self.temperature)
        total = own + self.weight * taught.mean()
        return len(logits) * total if self.repeated else total

    def extra_repr(self) -> str:
        """Describe the distillation."""
        return f"weight={self.weight}, temperature={self.temperature}, repeated={self.repeated}"
