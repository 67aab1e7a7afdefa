"Values that a chapter shows, each with its label."


def labelled(labels: str, *values: object) -> None:
    "Print values, each with its label in front."
    names = labels.split(', ')
    width = max(map(len, names))
    for name, value in zip(names, values, strict=True):
        print(f'{name:{width}}  {value if isinstance(value, str) else repr(value)}')
