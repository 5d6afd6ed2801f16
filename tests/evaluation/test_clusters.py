"""eval/report.py --clusters: errors count clusters of nearly equal images, and the images themselves stay known."""

from pathlib import Path

import pytest
from report_files import run

from open_r1.common.errors import UserError
from open_r1.data.overlap.clusters import write_clusters
from open_r1.evaluation.comparing.scored_runs import load
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.statistics import accuracy


def test_errors_count_clusters_of_nearly_equal_images(tmp_path: Path) -> None:
    file = run(tmp_path, None, "CT", 20)
    clusters = {f"CT-{number}": f"cluster {number // 4}" for number in range(40)}
    (plain,), (clustered,) = load([file]), load([file], clusters=clusters)
    estimates = [
        accuracy([result.correct for result in results], [result.image for result in results])
        for results in (plain.file.results, clustered.file.results)
    ]
    assert [estimate.clusters for estimate in estimates] == [40, 10]
    assert estimates[0].mean == estimates[1].mean
    assert (estimates[1].stderr or 0) > 1.9 * (estimates[0].stderr or 0), "neighbours are right or wrong together"
    assert [result.own_image for result in clustered.file.results] == [result.image for result in plain.file.results]


@pytest.mark.slow
def test_the_report_says_by_what_errors_are_clustered(tmp_path: Path) -> None:
    file = run(tmp_path, None, "CT", 20)
    write_clusters(tmp_path / "clusters.csv", {f"CT-{number}": "one" for number in range(0, 40, 2)})
    summary = write_report([file], tmp_path / "report", clusters=tmp_path / "clusters.csv")
    assert "count clusters of nearly equal images" in summary
    write_clusters(tmp_path / "clusters.csv", {"MRI-0": "one"})
    with pytest.raises(UserError, match="--clusters has no question of these results"):
        write_report([file], tmp_path / "other", clusters=tmp_path / "clusters.csv")
