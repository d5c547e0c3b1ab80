//! CSV files.

use super::*;

fn read_text(text: &str) -> ReadFile {
    read_ok(&Files::new().bytes(text))
}

fn dialect(text: impl AsRef<[u8]>) -> Dialect {
    let files = Files::new();
    let inspection = inspect(&files.bytes(text), "", &Options::default()).unwrap();
    match inspection.format {
        Format::Csv(dialect) => dialect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_delimiter_is_found() {
    for delimiter in [',', ';', '\t', '|'] {
        let text = "code,name,note\n1,Lamp,\"a,b;c|d\"\n".replace(',', &delimiter.to_string());
        assert_eq!(dialect(&text).delimiter, delimiter as u8, "{delimiter}");
        let found = read_text(&text);
        assert_eq!(found.codes(), ["1"], "{delimiter}");
    }
    // more commas than semicolons, but only semicolons make a header row
    assert_eq!(dialect("code;name;a,b,c,d\n1;x;y\n").delimiter, b';');
}

#[test]
fn quotes_are_found_and_what_is_found_can_be_overruled() {
    let single = "'code';'name'\n'1';'a;b'\n";
    assert_eq!(dialect(single).quote, Quote::Single);
    assert_eq!(read_text(single).rows[0].name, "a;b");
    assert_eq!(dialect("code,name\n1,'x'\n").quote, Quote::Double);

    let files = Files::new();
    let read = |text: &[u8], options: Options| read_all(&files.bytes(text), &options).unwrap().1;
    let found = read(
        b"code,name\n1,\"x\"\n",
        Options {
            csv_quote: Some(Quote::None),
            ..Options::default()
        },
    );
    assert_eq!(found.rows[0].name, "\"x\"");
    let found = read(
        b"code:name\n1:a,b\n",
        Options {
            csv_delimiter: Some(b':'),
            ..Options::default()
        },
    );
    assert_eq!(found.rows[0].name, "a,b");
    let found = read(
        b"code;name\n1;\xe8\n",
        Options {
            csv_charset: Some(Charset::WINDOWS_1250),
            ..Options::default()
        },
    );
    assert_eq!(found.rows[0].name, "č");
}

#[test]
fn a_sep_line_decides_and_is_no_row() {
    let found = dialect("sep=^\r\ncode^name\r\n1^x\r\n");
    assert!(found.has_sep_line && found.delimiter == b'^');
    let found = read_text("sep=;\ncode;name\n1;x\n2;\n");
    assert_eq!(found.rows[0].row_no, 2);
    assert_eq!(found.faults(), [(3, "name", "required")]);
}

#[test]
fn encodings() {
    let text = "code;name\n007;Größe €\n";
    let utf16: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let (windows, ..) = encoding_rs::WINDOWS_1252.encode(text);
    let files = Files::new();
    for bytes in [
        text.as_bytes(),
        format!("\u{feff}{text}").as_bytes(),
        &utf16,
        &windows,
    ] {
        let found = read_ok(&files.bytes(bytes));
        assert_eq!(
            (found.codes(), found.rows[0].name.as_str()),
            (vec!["007"], "Größe €")
        );
    }
    assert_eq!(dialect(&utf16).charset, Charset::UTF_16LE);
}

#[test]
fn row_numbers_are_those_of_a_spreadsheet() {
    let found =
        read_text("code,name\r\n\r\n1,\"two\r\nlines\"\r\n,,\r\n\r\n2,x\r\n \r\n3,\"y\"\"z\"\r\n");
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|r| (r.row_no, r.name.as_str()))
        .collect();
    assert_eq!(rows, [(3, "two\r\nlines"), (6, "x"), (8, "y\"z")]);
    assert_eq!(found.summary.n_rows, 3);
    for ends in ["\n", "\r"] {
        let found = read_text(&"code,name||1,x||2,y|".replace('|', ends));
        let rows: Vec<_> = found.rows.iter().map(|r| r.row_no).collect();
        assert_eq!(rows, [3, 5], "{ends:?}");
    }
}

#[test]
fn ragged_rows() {
    let found = read_text("code,name,price\n1,x\n2,y,1.5,\n3,z,1.5,shifted\n4,v,2,,,\n");
    assert_eq!(found.codes(), ["1", "2", "4"]);
    assert_eq!(found.faults(), [(4, "", "too_many_cells")]);
}

#[test]
fn a_quote_that_is_never_closed_is_told() {
    let found = read_text("code,name\n1,x\n2,\"y\n3,z\n4,v\n");
    assert_eq!(found.codes(), ["1"]);
    assert_eq!(found.faults(), [(3, "", "unclosed_quote")]);
    // an inch is no quote
    let found = read_text("code,name\n1,x\n2,12\" pipe");
    assert_eq!(found.rows[1].name, "12\" pipe");
}

#[test]
fn a_stray_quote_that_swallows_rows_is_told() {
    let line = |n: u32| match n {
        30 => "30,\"24 inch\n".to_owned(),
        9_000 => "9000,\"24 inch\" wheel\n".to_owned(),
        n => format!("{n},name {n}\n"),
    };
    // more than one buffer of input
    let text: String = (1..10_000).map(line).collect();
    let found = read_text(&format!("code,name\n{text}"));
    assert_eq!(found.codes().len(), 29 + 999);
    let error = found.errors.iter().find(|it| it.code == "unclosed_quote");
    let error = error.unwrap();
    assert_eq!(error.row_no, 31);
    assert!(error.message.contains("8970 lines below"), "{error:?}");
    // nothing is swallowed within a line, nor by lines that are meant
    let found = read_text("code,name\n1,\"12\" pipe\n2,\"a\nb\" \n3,\"a\n\"\"b\"\"\"\n");
    assert_eq!(
        (found.codes(), found.faults()),
        (vec!["1", "2", "3"], vec![])
    );
}

#[test]
fn an_import_that_began_before_texts_were_strict_goes_on_as_it_began() {
    let path = Files::new();
    let path = path.bytes(b"code,name\n1,\"a\nb\" c\n2,\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\n");
    let options = Options::default();
    let now = inspect(&path, "", &options).unwrap();
    let mut json = serde_json::to_value(&now).unwrap();
    let dialect = json["format"]["csv"].as_object_mut().unwrap();
    assert_eq!(dialect.remove("is_strict"), Some(true.into()));
    let before: Inspection = serde_json::from_value(json).unwrap();
    assert_eq!(before.fingerprint(&options), now.fingerprint(&options));
    let n_bad = |inspection| {
        let read = read(&path, inspection, &options, &mut |_| {
            ControlFlow::Continue(())
        });
        read.unwrap().n_bad
    };
    assert_eq!((n_bad(&before), n_bad(&now)), (0, 2));
}

#[test]
fn a_few_bad_bytes_are_errors_of_their_cells() {
    let rows = "1,Größe žluťoučký 日本\n".as_bytes().to_vec();
    let bad = b"code,name\n".iter().chain(&rows).copied();
    let bad: Vec<u8> = bad.chain(*b"2,x \xf0\x9f\x98\n3,y\n").collect();
    let marked = [b"\xef\xbb\xbfcode,name\n2,\xff\n3,y\n".as_slice()].concat();
    for (bytes, row_no) in [(bad, 3), (marked, 2)] {
        assert_eq!(dialect(&bytes).charset, Charset::UTF_8);
        let found = read_ok(&Files::new().bytes(&bytes));
        assert_eq!(found.codes().last(), Some(&"3"));
        assert_eq!(found.faults(), [(row_no, "name", "invalid_character")]);
        let value = found.errors[0].value.as_deref().unwrap();
        assert!(value.ends_with('\u{fffd}'), "{value}");
    }
    let named = Options {
        csv_charset: Some(Charset::UTF_8),
        ..Options::default()
    };
    let files = Files::new();
    let path = files.bytes(b"code,name,\xfcber\n1,\xff,2\n");
    let (inspection, found) = read_all(&path, &named).unwrap();
    assert_eq!(found.faults(), [(2, "name", "invalid_character")]);
    assert_eq!(inspection.mapping.columns[2].header, "\u{fffd}ber");
}

#[test]
fn a_row_without_end_does_not_fill_the_memory() {
    let mut text = format!("code,name\n{}9,\"", "1,x\n".repeat(25));
    text.push_str(&"never closed\n".repeat(3_000_000));
    let files = Files::new();
    let path = files.bytes(&text);
    let options = Options::default();
    let inspection = inspect(&path, "", &options).unwrap();
    let refusal = read(&path, &inspection, &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
    assert!(
        refusal.message.contains("row 27 is longer than 32 MiB"),
        "{refusal}"
    );
}

#[test]
fn headers_may_come_late_and_in_any_language() {
    let found = read_text("Preisliste 2026;;\n\nPreis;Artikel-Nr.;BEZEICHNUNG\n9.5;A1;Lampe\n");
    assert_eq!(found.rows[0].row_no, 4);
    assert_eq!(found.rows[0].price.unwrap().to_string(), "9.5");
    let late = format!("{}code,name\n1,x\n", "\n".repeat(20));
    assert_eq!(refused(&Files::new().bytes(late)).code, Refusal::EMPTY_FILE);
    let twentieth = format!("{}code,name\n1,x\n", "\n".repeat(19));
    assert_eq!(read_text(&twentieth).codes(), ["1"]);
}

#[test]
fn chunks_hold_good_and_bad_rows_together() {
    let row = |n| format!("{n},{}\n", if n % 5 == 0 { "" } else { "x" });
    let text: String = ["code,name\n".to_owned()]
        .into_iter()
        .chain((0..25).map(row))
        .collect();
    let files = Files::new();
    let path = files.bytes(&text);
    let options = Options {
        chunk_rows: 10,
        ..Options::default()
    };
    let (inspection, found) = read_all(&path, &options).unwrap();
    assert_eq!(
        found.chunks,
        [(0, 10, 2, 11), (1, 10, 2, 21), (2, 5, 1, 26)]
    );
    let summary = Summary {
        n_rows: 25,
        n_bad: 5,
        n_chunks: 3,
        last_row: 26,
        n_hidden: 0,
        stopped: false,
    };
    assert_eq!(found.summary, summary);
    assert_eq!(count_rows(&path, &inspection), Some(25));

    let mut n_chunks = 0;
    let stopped = read(&path, &inspection, &options, &mut |_| {
        n_chunks += 1;
        ControlFlow::Break(())
    });
    assert!(stopped.unwrap().stopped && n_chunks == 1);
}

#[test]
fn a_chunk_ends_at_its_bound_of_bytes_too() {
    let files = Files::new();
    let long = "x".repeat(1_000);
    let good = |n: u32| format!("{},a,{long}\n", n % 20);
    let good: String = (0..25).map(good).collect();
    let bad = |n: u32| format!("b{n},,\n");
    let bad: String = (0..9).map(bad).collect();
    let path = files.bytes(format!("code,name,note\n{good}{bad}"));
    let options = Options {
        chunk_bytes: 10_000,
        ..Options::default()
    };
    let (_, found) = read_all(&path, &options).unwrap();
    let n_rows: Vec<u32> = found.chunks.iter().map(|chunk| chunk.1).collect();
    // what is said of a bad row weighs, too
    assert_eq!(n_rows, [10, 10, 10, 4]);
    assert_eq!(read_all(&path, &options).unwrap().1, found);
    let whole = read_ok(&path);
    assert_eq!((whole.chunks.len(), &whole.rows), (1, &found.rows));
    // as the downloads and a look before a replace_all read it
    let all = Options {
        allow_duplicates: true,
        ..options
    };
    let (_, all) = read_all(&path, &all).unwrap();
    let ends = |file: &ReadFile| file.chunks.iter().map(|it| it.3).collect::<Vec<_>>();
    assert_eq!((ends(&all), all.rows.len()), (ends(&found), 25));
}

#[test]
fn more_rows_than_allowed_end_the_reading() {
    let files = Files::new();
    let path = files.bytes("code,name\n1,a\n2,b\n3,c\n4,d\n");
    let options = Options {
        chunk_rows: 2,
        max_rows: 3,
        ..Options::default()
    };
    let inspection = inspect(&path, "", &options).unwrap();
    let mut n_rows = 0;
    let refusal = read(&path, &inspection, &options, &mut |chunk| {
        n_rows += chunk.n_rows;
        ControlFlow::Continue(())
    });
    assert_eq!(refusal.unwrap_err().code, Refusal::TOO_MANY_ROWS);
    assert_eq!(n_rows, 2);
}

#[test]
fn every_sort_of_row_error() {
    let long = "x".repeat(32_768);
    let text = format!(
        "code;name;price;stock;ean;updated_at;weight;note\n\
         ;no code;1;1;;;;\n\
         A1;;1;1;;;;\n\
         A2;x;1.234,56 €;1;;;;\n\
         A3;x;-1;1;;;;\n\
         A4;x;1;1.5;;;;\n\
         A5;x;1;-1;;;;\n\
         A6;x;1;1;7.92E+12;;;\n\
         7.92E+12;x;1;1;;;;\n\
         A8;x;1;1;;2026-02-30;;\n\
         A9;x;1000000000000000;1;;;;\n\
         A10;x;1;1;;;heavy;\n\
         A11;{long};1;1;;;;\n\
         A12;x;1;1;;;;;;shifted\n\
         GOOD;x;1118.2700000000001;1;4006381333931;2026-01-31;0.5;n\n\
         GOOD;x;1;1;;;;\n\
         A1;twice, the first one bad;1;1;;;;\n"
    );
    let found = read_text(&text);
    assert_eq!(found.codes(), ["GOOD"]);
    assert_eq!(found.rows[0].price.unwrap().to_string(), "1118.27");
    assert_eq!(
        found.faults(),
        [
            (2, "code", "required"),
            (3, "name", "required"),
            (4, "price", "invalid_number"),
            (5, "price", "negative_number"),
            (6, "stock", "not_whole_number"),
            (7, "stock", "negative_number"),
            (8, "ean", "precision_lost"),
            (9, "code", "precision_lost"),
            (10, "updated_at", "invalid_date"),
            (11, "price", "number_too_large"),
            (12, "weight", "invalid_number"),
            (13, "name", "too_long"),
            (14, "", "too_many_cells"),
            (16, "code", "duplicate_code"),
            (17, "code", "duplicate_code"),
        ]
    );
    assert_eq!(found.summary.n_bad, 15);
    assert!(
        found
            .errors
            .iter()
            .all(|e| e.value.as_ref().is_none_or(|v| v.len() <= 200))
    );
}

#[test]
fn the_fingerprint_tells_when_chunks_could_differ() {
    let files = Files::new();
    let options = Options::default();
    let one = inspect(&files.bytes("code,name\n1,x\n"), "", &options).unwrap();
    let other_time = inspect(&files.bytes("code,name\n2,y\n"), "", &options).unwrap();
    let other = inspect(&files.bytes("name,code\nx,1\n"), "", &options).unwrap();
    assert_eq!(one.fingerprint(&options), other_time.fingerprint(&options));
    assert_ne!(one.fingerprint(&options), other.fingerprint(&options));
    let smaller = Options {
        chunk_rows: 5,
        ..options.clone()
    };
    assert_ne!(one.fingerprint(&options), one.fingerprint(&smaller));
    let mut lighter = Options {
        chunk_bytes: 5,
        ..options.clone()
    };
    let fingerprint = one.fingerprint(&options);
    assert_ne!(fingerprint, one.fingerprint(&lighter));
    assert!(!one.go_on(&mut lighter, fingerprint));
    let before = Options {
        chunk_bytes: usize::MAX,
        ..options.clone()
    };
    let mut resumed = options.clone();
    assert!(one.go_on(&mut resumed, fingerprint));
    assert_eq!(resumed.chunk_bytes, options.chunk_bytes);
    assert!(one.go_on(&mut resumed, one.fingerprint(&before)));
    assert_eq!(resumed.chunk_bytes, usize::MAX);
    let heavier = Options {
        chunk_bytes: 16 << 20,
        ..options.clone()
    };
    let mut resumed = options;
    assert!(one.go_on(&mut resumed, one.fingerprint(&heavier)));
    assert_eq!(resumed.chunk_bytes, 16 << 20);
    let json = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Inspection>(&json).unwrap(), one);
}
