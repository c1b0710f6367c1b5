//! As much of JSON Schema as the document uses.

use serde_json::{Map, Value, json};

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// The types that a schema allows; none where it does not say.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn all<'a>(schema: &'a Value, word: &str) -> Vec<&'a Value> {
    schema[word].as_array().into_iter().flatten().collect()
}

/// A value of the schema: its example, or the least one.
pub(super) fn example(document: &Value, schema: &Value) -> Value {
    let schema = resolve(document, schema);
    if let Some(example) = schema.get("example").or(schema.get("default")).or(schema["enum"].get(0)) {
        return example.clone();
    }
    if let Some(first) = all(schema, "oneOf").first().or(all(schema, "anyOf").first()) {
        return example(document, first);
    }
    if !all(schema, "allOf").is_empty() {
        let parts = all(schema, "allOf").into_iter().map(|part| example(document, part));
        return parts.filter_map(|part| part.as_object().cloned()).flatten().collect::<Map<_, _>>().into();
    }
    match types(schema).first() {
        Some(&"object") => {
            let required = all(schema, "required").into_iter().filter_map(Value::as_str);
            let member = |name: &str| (name.to_owned(), example(document, &schema["properties"][name]));
            required.map(member).collect::<Map<_, _>>().into()
        }
        Some(&"array") => json!([]),
        Some(&"string") => json!("a"),
        Some(&"integer" | &"number") => json!(1),
        Some(&"boolean") => json!(true),
        _ => Value::Null,
    }
}

/// Where the value departs from the schema.
pub(super) fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = resolve(document, schema);
    let fits = |schema: &&Value| mismatch(document, schema, value).is_none();
    let one = all(schema, "oneOf");
    if !one.is_empty() && one.iter().filter(|schema| fits(schema)).count() != 1 {
        return Some(format!("{value} fits none, or several, of {schema}"));
    }
    let any = all(schema, "anyOf");
    if !any.is_empty() && !any.iter().any(fits) {
        return Some(format!("{value} fits none of {schema}"));
    }
    if let Some(wrong) = all(schema, "allOf").into_iter().find_map(|part| mismatch(document, part, value)) {
        return Some(wrong);
    }
    let words = all(schema, "enum");
    if !words.is_empty() && !words.contains(&value) {
        return Some(format!("{value} is none of {words:?}"));
    }
    let types = types(schema);
    let fits = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("a type that is not known: {other}"),
    };
    if !types.is_empty() && !types.iter().any(fits) {
        return Some(format!("{value} is no {types:?}"));
    }
    match value {
        Value::Object(members) => {
            let missing = all(schema, "required").into_iter().filter_map(Value::as_str);
            if let Some(name) = missing.into_iter().find(|name| !members.contains_key(*name)) {
                return Some(format!("`{name}` is missing"));
            }
            members.iter().find_map(|(name, member)| {
                let wrong = mismatch(document, schema["properties"].get(name)?, member)?;
                Some(format!("{name}: {wrong}"))
            })
        }
        Value::Array(items) if schema["items"].is_object() => {
            items.iter().find_map(|item| mismatch(document, &schema["items"], item))
        }
        _ => None,
    }
}

#[test]
fn a_mismatch_is_found() {
    let document = json!({"components": {"schemas": {"A": {
        "type": "object", "required": ["a"], "properties": {
            "a": {"type": ["string", "null"]}, "b": {"type": "array", "items": {"enum": ["x", "y"]}}
        }
    }}}});
    let schema = json!({"$ref": "#/components/schemas/A"});
    for right in [json!({"a": "1"}), json!({"a": null, "b": ["x"], "c": 1}), example(&document, &schema)] {
        assert_eq!(mismatch(&document, &schema, &right), None);
    }
    for wrong in
        [json!([]), json!({}), json!({"a": 1}), json!({"a": "", "b": ["z"]}), json!({"a": "", "b": {}})]
    {
        assert!(mismatch(&document, &schema, &wrong).is_some(), "{wrong}");
    }
}
