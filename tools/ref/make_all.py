"""Makes every fixture file again: `python make_all.py`, or `python make_all.py layers_conv losses` for some."""

import os
import subprocess
import sys

FAMILIES = ["layers_conv", "layers_pool", "layers_norm", "layers_activation", "layers_resample", "layers_misc",
            "losses", "optimizers", "schedules", "init_stats", "printing", "trajectories", "zoo", "detectors", "pictures",
            "jpegs", "presets", "pth_files", "coco_eval", "nms"]

here = os.path.dirname(os.path.abspath(__file__))
for family in sys.argv[1:] or FAMILIES:
    subprocess.run([sys.executable, os.path.join(here, f"{family}.py")], check=True, cwd=here)
