"""Puts the configurations into a wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    """Copy ``configs/``, which lies beside the package in a checkout, into the package that is built."""

    def run(self) -> None:
        """Build the modules, then add the configurations."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "beft_lightning" / "configs"
            shutil.copytree("configs", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigurations})
