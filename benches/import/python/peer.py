"""Imports a workbook into one table of Postgres: the smaller job.

    peer.py WHAT WORKBOOK URL

One table, no history, no errors by row, no checkpoints: the workbook is read, copied, and merged by
its key. Prints the seconds from the open file to the last commit; libraries are loaded before.
"""

import io
import os
import sys
import time

COLUMNS = [
    "code", "name", "description", "brand", "category", "price", "currency", "stock", "ean", "url",
    "weight", "updated_at", "Material",
]  # fmt: skip


def copy_and_merge(url, csv):
    """Copies CSV into a temporary table and merges that by the key."""
    import psycopg

    names = ", ".join(f'"{name.lower()}"' for name in COLUMNS)
    updates = ", ".join(f'"{name.lower()}" = excluded."{name.lower()}"' for name in COLUMNS[1:])
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE incoming (LIKE peer.products) ON COMMIT DROP")
        with cursor.copy(f"COPY incoming ({names}) FROM STDIN (FORMAT csv)") as copy:
            while piece := csv.read(1 << 20):
                copy.write(piece)
        cursor.execute(
            f"INSERT INTO peer.products ({names}) SELECT {names} FROM incoming"
            f" ON CONFLICT (code) DO UPDATE SET {updates}"
        )


def by_pandas(engine):
    import pandas

    def run(workbook, url):
        frame = pandas.read_excel(workbook, engine=engine, dtype={"code": str, "ean": str})
        csv = io.StringIO()
        frame.to_csv(csv, index=False, header=False)
        csv.seek(0)
        copy_and_merge(url, csv)

    return run


def read_by_polars(workbook):
    import polars

    return polars.read_excel(workbook, engine="calamine", schema_overrides={"code": polars.String, "ean": polars.String})


def by_polars(workbook, url):
    csv = io.BytesIO()
    read_by_polars(workbook).write_csv(csv, include_header=False)
    csv.seek(0)
    copy_and_merge(url, csv)


def merge_by_dlt(data, url, **options):
    import dlt

    url = url.replace("//bench@", "//bench:any@", 1)  # dlt wants a password; the server asks for none
    pipeline = dlt.pipeline(
        pipeline_name="peer",
        destination=dlt.destinations.postgres(url),
        dataset_name="peer",
        pipelines_dir=os.environ["PEER_FOLDER"],
        dev_mode=False,
    )
    merge = {"disposition": "merge", "strategy": "upsert"}
    resource = dlt.resource(data, name="dlt_products", primary_key="code", write_disposition=merge)
    pipeline.run(resource, **options)


def by_dlt_arrow(workbook, url):
    merge_by_dlt(read_by_polars(workbook).to_arrow(), url, loader_file_format="csv")


def by_dlt_rows(workbook, url):
    import python_calamine

    def rows():
        sheet = python_calamine.CalamineWorkbook.from_path(workbook).get_sheet_by_index(0)
        lines = sheet.iter_rows()
        header = next(lines)
        for line in lines:
            yield dict(zip(header, line))

    merge_by_dlt(rows(), url)


PEERS = {
    "polars": lambda: by_polars,
    "pandas-calamine": lambda: by_pandas("calamine"),
    "pandas-openpyxl": lambda: by_pandas("openpyxl"),
    "dlt-arrow": lambda: by_dlt_arrow,
    "dlt-rows": lambda: by_dlt_rows,
}


def load_libraries(what):
    """Loads what the peer needs before the clock runs."""
    if what.startswith("polars") or what == "dlt-arrow":
        import fastexcel, polars, pyarrow  # noqa: F401, E401
    if what.startswith("pandas"):
        import openpyxl, pandas, python_calamine  # noqa: F401, E401
    if what.startswith("dlt"):
        import dlt, dlt.destinations, psycopg2, python_calamine  # noqa: F401, E401
    import psycopg  # noqa: F401


def main():
    what, workbook, url = sys.argv[1:]
    load_libraries(what)
    run = PEERS[what]()
    began = time.monotonic()
    run(workbook, url)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
