//! `ingestd mappings`, and imports of several sheets and of headers that are told.

use serde_json::Value;

use super::{World, ran};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_mapping_is_saved_named_and_removed() {
    let world = World::create().await;
    let _daemon = world.daemon().await;
    let path = world.dir.path().join("list.csv");
    std::fs::write(&path, "Unser Zeichen;Text\nA1;Lamp\n").unwrap();
    let mappings = |args: &[&str]| ran(world.command("mappings").args(args));
    let import = |args: &[&str]| ran(world.command("import").arg(&path).args(args));
    import(&[]).code(65).says("missing required columns");
    import(&["--map", "Unser Zeichen=code", "--map", "Text=name"])
        .code(0)
        .says("1 of 1 rows");
    import(&["--map", "Unser Zeichen"])
        .code(64)
        .says("header=field");

    mappings(&["set", "acme", "--map", "Unser Zeichen=kode"])
        .code(64)
        .says("no field");
    let saved = mappings(&[
        "set",
        "acme",
        "--map",
        "Unser Zeichen=code",
        "--map",
        "Text=name",
        "--json",
    ]);
    assert_eq!(parsed(&saved.ok())["headers"]["Text"], "name");
    assert!(world.audited("mapping.save", "mapping/acme").await);
    import(&["--map", "@acme"]).code(0).says("1 of 1 rows");
    let listed = mappings(&["ls"]).ok();
    assert!(listed.contains("Unser Zeichen=code"), "{listed}");
    mappings(&["rm", "acme"]).code(0);
    assert!(world.audited("mapping.remove", "mapping/acme").await);
    mappings(&["rm", "acme"]).code(66).says("no mapping acme");
    import(&["--map", "@acme"]).code(65).says("is not there");
}

#[tokio::test]
async fn several_sheets_are_imported_and_summed_up() {
    let world = World::create().await;
    let _daemon = world.daemon().await;
    let mut book = rust_xlsxwriter::Workbook::new();
    for (name, headers, row) in [
        ("Notes", ["Hello", ""], ["", ""]),
        ("Lamps", ["code", "name"], ["L1", "Lamp"]),
        ("Kabel", ["Artikelnr", "Bezeichnung"], ["L1", "twice"]),
    ] {
        let sheet = book.add_worksheet().set_name(name).unwrap();
        sheet.write_row(0, 0, headers).unwrap();
        sheet.write_row(1, 0, row).unwrap();
    }
    let path = world.dir.path().join("book.xlsx");
    book.save(&path).unwrap();
    let import = |args: &[&str]| ran(world.command("import").arg(&path).args(args));
    let told = import(&["--sheets", "all"])
        .says("sheet Notes was not read")
        .ok();
    for words in ["Kabel", "of sheet \"Lamps\""] {
        assert!(told.contains(words), "{told}");
    }
    let told = import(&["--sheets", "Lamps,3", "--json"]).ok();
    let summary = parsed(told.lines().last().unwrap());
    let sheets = &summary["import"]["sheets"];
    assert_eq!(sheets[1]["sheet"], "Kabel", "{summary}");
    assert_eq!(sheets[1]["errorCount"], 1, "{summary}");
    assert_eq!(
        summary["import"]["first_errors"][0]["sheet"], "Kabel",
        "{summary}"
    );
    import(&["--sheets", "Lamps,Nope"])
        .code(65)
        .says("there is no sheet");
    import(&["--sheets", "all", "--sheet", "Lamps"]).code(64);
    import(&["--merged-cells", "down"])
        .code(64)
        .says("merged_cells");
}
