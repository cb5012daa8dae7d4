//! COCO's figures against pycocotools, by a fixture that `tools/ref/coco_eval.py` makes.

use serde_json::Value;
use striate_vision::detection::{Detection, GroundTruth, STAT_NAMES, evaluate_coco};

/// The rows of an entry.
fn rows<'a>(case: &'a Value, key: &str) -> impl Iterator<Item = Vec<f64>> + 'a {
    let rows = case[key].as_array().unwrap().iter();
    rows.map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect())
}

fn numbers(case: &Value, key: &str) -> Vec<f64> {
    case[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn two_hundred_sets_have_the_figures_of_pycocotools() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/coco_eval.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 200);
    let (mut wrong, mut worst) = (Vec::new(), 0.0f64);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let whole = |key| numbers(case, key).iter().map(|v| *v as i64).collect::<Vec<_>>();
        let truth = rows(case, "gt").map(|row| GroundTruth {
            image: row[0] as i64,
            category: row[1] as i64,
            xywh: [row[2], row[3], row[4], row[5]],
            area: row[6],
            iscrowd: row[7] == 1.0,
            id: row[8] as i64,
        });
        let found = rows(case, "dt").map(|row| Detection {
            image: row[0] as i64,
            category: row[1] as i64,
            xywh: [row[2], row[3], row[4], row[5]],
            score: row[6],
        });
        let (truth, found): (Vec<_>, Vec<_>) = (truth.collect(), found.collect());
        let figures = evaluate_coco(&whole("images"), &whole("categories"), &truth, &found);
        let mut check = |what: &str, ours: f64, theirs: f64| {
            worst = worst.max((ours - theirs).abs());
            if (ours - theirs).abs() > 1e-9 {
                wrong.push(format!("{name}: {what} is {ours}, pycocotools has {theirs}"));
            }
        };
        for ((stat, ours), theirs) in STAT_NAMES.iter().zip(figures.stats).zip(numbers(case, "stats")) {
            check(stat, ours, theirs);
        }
        for (class, theirs) in figures.classes.iter().zip(rows(case, "classes")) {
            for (ours, theirs) in [class.ap, class.ap50, class.ap75].into_iter().zip(theirs) {
                check(&format!("class {}", class.category), ours.unwrap_or(-1.0), theirs);
            }
        }
    }
    println!("largest difference {worst:e}");
    assert!(wrong.is_empty(), "{} figures differ:\n{}", wrong.len(), wrong.join("\n"));
}
