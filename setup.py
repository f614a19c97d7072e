"Package metadata lives in settings.ini; this file hands it to setuptools, with the version from audiolm_edu/__init__.py."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
lines = lambda key: cfg[key].strip().splitlines()

setup(
    version=re.search(r"__version__ = [\"'](.+?)[\"']", (here/'audiolm_edu/__init__.py').read_text())[1],
    description=cfg['description'], author=cfg['author'], license=cfg['license'], keywords=cfg['keywords'],
    project_urls={'Source': cfg['repository'], 'Changelog': cfg['repository']+'/blob/main/CHANGELOG.md', 'Paper': 'https://arxiv.org/abs/2209.03143'},
    classifiers=lines('classifiers'),
    long_description=re.sub(r'\]\((?!http)', f"]({cfg['repository']}/raw/main/", (here/'README.md').read_text(encoding='utf-8')), long_description_content_type='text/markdown',
    packages=[*find_packages(include=['audiolm_edu*']), 'audiolm_edu.notebooks'],
    package_dir={'audiolm_edu.notebooks': 'nbs'},       # the wheel carries the notebooks for reading
    package_data={'audiolm_edu': ['clips/**/*', 'weights/**/*', 'plans/*', 'pairs/*', 'ablations/*', 'steinway/*', 'js/*', 'gpu.json', 'assignments/*.npz'], 'audiolm_edu.notebooks': ['*.ipynb', 'assignments/*.ipynb']},
    exclude_package_data={'audiolm_edu': ['weights/piano-baselines/*']},   # for comparison only; in the repository
    install_requires=lines('requirements'),
    extras_require={extra: lines(f'{extra}_requirements') for extra in ('train', 'hub', 'eval', 'course', 'bench', 'docs', 'dev')},
    entry_points={'console_scripts': lines('console_scripts')},
)
