"""Files of metrics."""

from snflow.train.metrics import EpochRow, MetricsFile


def test_metrics_drop_incomplete_rows_and_those_after_the_checkpoint(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.start(None)
    for epoch in range(4):
        metrics.append(EpochRow(epoch, epoch, None, 0.1, *[None] * 8, 0, 1.0, 0.1, 1.0))
    with metrics.path.open("a") as file:
        file.write("4,4,0.1,0.2")
    assert [row["epoch"] for row in metrics.read()] == [0, 1, 2, 3]
    metrics.start(2)
    assert [row["epoch"] for row in metrics.read()] == [0, 1, 2]
    assert metrics.read()[0]["objective"] == 0.1


def test_metrics_of_an_earlier_version_keep_their_rows(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.path.write_text("epoch,validation_nll,retired\n0,3.5,9\n1,2.5,9\n")
    assert [(row["epoch"], row["validation_nll"], row["objective"]) for row in metrics.read()] == [
        (0, 3.5, None),
        (1, 2.5, None),
    ]
    metrics.start(0)
    metrics.append(EpochRow(1, 1, None, 0.1, *[None] * 8, 0, 1.0, 0.1, 1.0))
    assert [row["objective"] for row in metrics.read()] == [None, 0.1]
