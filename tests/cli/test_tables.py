"""Tables fit the terminal, and never cut an id."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hub.cli.tables import TableColumn, choose_columns, format_table

WORDS = st.text(st.sampled_from("ab 漢\U0001f600-"), max_size=30)
IDS = st.text("abcdef0123456789", min_size=1, max_size=40)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[TableColumn], list[list[str]]]:
    wholes = draw(st.lists(st.booleans(), min_size=1, max_size=6))
    columns = [
        TableColumn(f"title{number}", is_whole=is_whole, rank=draw(st.integers(0, 3)))
        for number, is_whole in enumerate(wholes)
    ]
    rows = st.tuples(*(IDS if is_whole else WORDS for is_whole in wholes)).map(list)
    return columns, draw(st.lists(rows, min_size=1, max_size=5))


@given(tables(), st.integers(10, 200))
def test_whole_cells_stay_in_one_line(table: tuple[list[TableColumn], list[list[str]]], width: int) -> None:
    """No character of another cell is lost either."""
    columns, rows = table
    places = choose_columns(columns, rows, width)
    lines = format_table(columns, rows, width)
    for row in rows:
        assert all(any(row[place] in line for line in lines) for place in places if columns[place].is_whole)
    shown_text = sorted("".join(row[place] for row in rows for place in places))
    titles = "".join(columns[place].title for place in places)
    assert [sign for sign in sorted("".join(lines)) if sign != " "] == [
        sign for sign in sorted(titles + "".join(shown_text)) if sign != " "
    ]


@given(tables(), st.integers(10, 200))
def test_columns_are_left_out_by_their_rank(table: tuple[list[TableColumn], list[list[str]]], width: int) -> None:
    """Only if the table is too wide. Those without a rank are always there."""
    columns, rows = table
    places = choose_columns(columns, rows, width)
    left_out = [column for place, column in enumerate(columns) if place not in places]
    shown_ranks = [columns[place].rank for place in places]
    assert all(column.rank and column.rank >= max(shown_ranks, default=0) for column in left_out)
    longest = max(map(cell_len, format_table(columns, rows, width)))
    assert longest <= width or not any(shown_ranks)
    assert choose_columns(columns, rows, 1000) == [*range(len(columns))]
