use super::{scale::short, svg::escaped, *};

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Every element is closed, and nothing is no number.
fn well_formed(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for name in ["svg", "title", "text"] {
        let (open, close) = (format!("<{name}"), format!("</{name}>"));
        assert_eq!(count(svg, &open), count(svg, &close), "{name}");
    }
    for line in svg.lines().skip(1).filter(|line| *line != "</svg>") {
        assert!(line.starts_with('<') && line.ends_with('>'), "{line}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn linear_ticks_are_round_and_cover_the_values() {
    let scale = Axis::linear("x").scale([3.0, 470_000.0].into_iter());
    assert_eq!(
        scale.ticks,
        [0.0, 100_000.0, 200_000.0, 300_000.0, 400_000.0, 500_000.0]
    );
    assert!((scale.place(250_000.0) - 0.5).abs() < 1e-9);
    assert!((scale.place(0.0)).abs() < 1e-9);
    // Beyond the edge stays inside.
    assert!((scale.place(1e9) - 1.0).abs() < 1e-9);
    let most = |values: &[f64]| {
        let scale = Axis::linear("x").scale(values.iter().copied());
        scale.ticks.last().copied()
    };
    assert_eq!(most(&[11_000.0]), Some(12_000.0));
    assert_eq!(most(&[0.0]), Some(1.0));
    assert_eq!(most(&[]), Some(1.0));
}

#[test]
fn logarithmic_ticks_are_finer_where_there_are_few() {
    let scale = Axis::logarithmic("x").scale([1.0, 5000.0].into_iter());
    assert_eq!(scale.ticks, [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
    assert!((scale.place(100.0) - 0.5).abs() < 1e-9);
    let scale = Axis::logarithmic("x").scale([1.2, 34.0].into_iter());
    assert_eq!(scale.ticks, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
    let one = Axis::logarithmic("x").scale([10.0].into_iter());
    assert!(one.ticks.len() > 1);
    // What a logarithm cannot show is not shown.
    let scale = Axis::logarithmic("x").scale([0.0, 2.0, 30.0].into_iter());
    assert!((scale.place(0.0)).abs() < 1e-9);
}

#[test]
fn numbers_are_short() {
    let cases = [
        (0.0, "0"),
        (0.05, "0.05"),
        (1.0, "1"),
        (1.25, "1.25"),
        (42.0, "42"),
        (500.0, "500"),
        (1500.0, "1.5k"),
        (200_000.0, "200k"),
        (999_999.0, "1M"),
        (1_500_000.0, "1.5M"),
    ];
    for (value, expected) in cases {
        assert_eq!(short(value), expected);
    }
}

#[test]
fn text_cannot_break_out() {
    assert_eq!(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
}

#[test]
fn a_line_chart_has_all_points_labels_and_names() {
    let series = |name: &str, points: &[(f64, f64)]| Series {
        name: name.to_owned(),
        points: points.to_vec(),
    };
    let svg = LineChart {
        title: "Rows & batches".to_owned(),
        x: Axis::logarithmic("rows of a message"),
        y: Axis::linear("rows a second"),
        series: vec![
            series("one", &[(1.0, 5e4), (1000.0, 4e5)]),
            series("other", &[(1000.0, 3e5), (4000.0, 4e5), (16_000.0, 5e5)]),
        ],
    }
    .svg();
    well_formed(&svg);
    assert_eq!((count(&svg, "<polyline"), count(&svg, "<circle")), (2, 5));
    for text in [
        "Rows &amp; batches",
        "rows of a message",
        "rows a second",
        ">one<",
        ">other<",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    let empty = LineChart {
        title: String::new(),
        x: Axis::linear(""),
        y: Axis::logarithmic(""),
        series: vec![series("none", &[])],
    };
    well_formed(&empty.svg());
}

#[test]
fn stacked_bars_add_up() {
    let bar = |name: &str, parts: &[f64]| Bar {
        name: name.to_owned(),
        parts: parts.to_vec(),
    };
    let svg = StackedBars {
        title: "CPU a row".to_owned(),
        axis: "ns a row".to_owned(),
        parts: vec!["PostgreSQL", "router"],
        bars: vec![bar("a", &[4000.0, 150.0]), bar("b", &[2000.0, 0.0])],
    }
    .svg();
    well_formed(&svg);
    // The ground, two of the legend, four parts.
    assert_eq!(count(&svg, "<rect"), 7);
    assert!(svg.contains(">4.15k<") && svg.contains(">2k<"));
    assert!(svg.contains("ns a row"));
    well_formed(
        &StackedBars {
            title: String::new(),
            axis: String::new(),
            parts: vec![],
            bars: vec![],
        }
        .svg(),
    );
}
