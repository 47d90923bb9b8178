"""The data module inside Lightning's loops: order and views after a resume, empty validation, several processes."""

import warnings

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

from kdlab.data import Digits, Mixup, RandomCropFlip

pytestmark = pytest.mark.filterwarnings("ignore")


class Recorder(pl.LightningModule):
    """A linear classifier that writes down what it was shown."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)
        self.shown = {}
        self.validated = []

    def training_step(self, batch, batch_idx):
        self.shown[self.global_step] = (
            self.current_epoch, batch_idx, batch.index.tolist(), batch.view.tolist(), batch.image.sum().item(),
            batch.label.sum(0).tolist(),
        )  # fmt: skip
        return F.cross_entropy(self.linear(batch.image.flatten(1)), batch.label)

    def validation_step(self, batch, batch_idx):
        self.validated += batch.index.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def make_data(**arguments):
    augmentation = RandomCropFlip(1, flip=False)
    return Digits(**{"train_per_class": 9, "batch_size": 20, "augmentation": augmentation, "seed": 3, **arguments})


def fit(folder, data=None, ckpt_path=None, **arguments):
    every_step = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    every_epoch = ModelCheckpoint(folder, filename="end-{epoch}", every_n_epochs=1, save_top_k=-1)
    every_epoch.CHECKPOINT_EQUALS_CHAR = every_step.CHECKPOINT_EQUALS_CHAR = "-"
    trainer = pl.Trainer(
        **{"max_epochs": 3, "callbacks": [every_step, every_epoch], **arguments}, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    module = Recorder()
    trainer.fit(module, datamodule=data or make_data(mixing=Mixup()), ckpt_path=ckpt_path, weights_only=True)
    return module


def test_a_run_resumed_from_any_checkpoint_sees_the_same_batches_views_and_mixtures(tmp_path):
    whole = fit(tmp_path / "whole")
    assert list(whole.shown) == list(range(15))  # 90 images in batches of 20, 3 epochs
    checkpoints = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(checkpoints) == 15 + 3
    for checkpoint in checkpoints:
        resumed = fit(tmp_path / "resumed", ckpt_path=checkpoint, callbacks=[], enable_checkpointing=False)
        done = torch.load(checkpoint, weights_only=True)["global_step"]
        assert resumed.shown == {step: shown for step, shown in whole.shown.items() if step >= done}, checkpoint.name


def test_a_run_with_a_limited_epoch_resumes_alike(tmp_path):
    whole = fit(tmp_path / "whole", limit_train_batches=3)
    for step in (2, 3, 4):
        checkpoint = tmp_path / "whole" / f"step-{step}.ckpt"
        resumed = fit(tmp_path, ckpt_path=checkpoint, callbacks=[], enable_checkpointing=False, limit_train_batches=3)
        assert resumed.shown == {number: shown for number, shown in whole.shown.items() if number >= step}


def test_fit_skips_validation_without_a_warning_where_nothing_is_held_out(tmp_path):
    data = make_data(val_fraction=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = fit(tmp_path, data, enable_checkpointing=False, callbacks=[], max_epochs=1)
    assert len(module.shown) == 5
    assert module.validated == []
    assert not [warning for warning in caught if "Total length" in str(warning.message)]


def test_validation_sees_each_held_out_image_once_and_only_normalised(tmp_path):
    data = make_data(eval_batch_size=50)
    module = fit(
        tmp_path, data, enable_checkpointing=False, callbacks=[], max_epochs=1, num_sanity_val_steps=0
    )  # fmt: skip
    assert module.validated == data.val_split.index.tolist()


def test_overfitting_some_batches_shows_the_same_ones_in_every_epoch(tmp_path):
    module = fit(tmp_path, make_data(), overfit_batches=2, enable_checkpointing=False, callbacks=[])
    epochs = [[shown[2:5] for shown in module.shown.values() if shown[0] == epoch] for epoch in range(3)]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]


def test_a_batch_is_moved_only_where_it_does_not_lie_already():
    data = make_data()
    batch = next(iter(data.train_dataloader()))
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {part.device.type for part in moved} == {"meta"}
    assert type(moved) is type(batch)
