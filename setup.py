"Package metadata, read from settings.ini: nothing stands twice."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
settings = ConfigParser(delimiters=['='], interpolation=None)
settings.read(HERE / 'settings.ini', encoding='utf-8')
s = settings['DEFAULT']

setup(
    name=s['lib_name'], version=s['version'], description=s['description'],
    keywords=s['keywords'], author=s['author'],
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license=s['license'], license_files=['LICENSE'], python_requires=f'>={s["min_python"]}',
    packages=find_packages(include=['ike_lit', 'ike_lit.*']), package_data={'ike_lit': ['py.typed']},
    install_requires=s['requirements'].split(), extras_require={'dev': s['dev_requirements'].split()},
    entry_points={'console_scripts': s['console_scripts'].split()},
)
