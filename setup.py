"""Puts the configurations, which lie beside the package in a clone, into the installed package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fmjax", "fmjax.*"]), "fmjax.configs"],
    package_dir={"fmjax.configs": "configs"},
)
