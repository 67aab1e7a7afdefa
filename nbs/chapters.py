"""The pages of the book in their order, and which chapter writes which module."""
import re
from pathlib import Path

BOOK = Path(__file__).resolve().parent
CHAPTERS = sorted(BOOK.glob('[0-9][0-9]_*.ipynb'))
TOUR, AFTERNOON, GLOSSARY = (BOOK / f'{name}.ipynb' for name in ('index', 'afternoon', 'glossary'))
PAGES = [TOUR, AFTERNOON, *CHAPTERS, GLOSSARY]
FOUND = {path: re.search(r'#\| default_exp ([\w.]+)', path.read_text()) for path in CHAPTERS}
# what is imported from ike_lit, by its last name, which no two have in common
MODULES = {found[1].rpartition('.')[2]: found[1] for found in FOUND.values() if found}
WRITTEN = {found[1].rpartition('.')[2]: path for path, found in FOUND.items() if found}
WINGS = {  # of the package, and what each may import besides itself
    'wire': (), 'engine': ('wire',), 'kernel': ('wire', 'engine'), 'capture': ('wire',),
    'cli': ('wire', 'engine', 'kernel', 'capture'), 'testing': ('wire', 'engine')}
