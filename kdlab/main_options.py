"""The options of a training that most runs need: the help shows them, and a shell completes them."""

MAIN_OPTIONS = (
    "config", "print_config", "seed_everything", "experiment", "name", "runs_dir", "profile", "ckpt_path",
    "model", "data",
    "trainer.max_epochs", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision",
    "trainer.callbacks", "trainer.logger", "trainer.log_every_n_steps",
    "trainer.limit_train_batches", "trainer.fast_dev_run",
)  # fmt: skip
