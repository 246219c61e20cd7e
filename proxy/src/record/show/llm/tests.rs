//! Streams as the APIs document them, put together.

use mantra_macros::req_test;
use serde_json::json;

use super::*;

fn stream(data: &[Value]) -> Message {
    let events: Vec<Event> = (0..)
        .zip(data)
        .map(|(index, data)| Event {
            at: 1000 * (index + 1),
            event: "message".to_owned(),
            data: data.to_string(),
            id: None,
        })
        .collect();
    of_events(&events).expect("a known format")
}

#[req_test("REQ-REC-003")]
#[test]
fn a_message_of_anthropic_with_text_thinking_and_a_tool() {
    let message = stream(&[
        json!({"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":25,"output_tokens":1,"cache_read_input_tokens":5}}}),
        json!({"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}),
        json!({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}),
        json!({"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}),
        json!({"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}),
        json!({"type":"ping"}),
        json!({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hel"}}),
        json!({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"lo"}}),
        json!({"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"weather","input":{}}}),
        json!({"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}),
        json!({"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\"Rome\"}"}}),
        json!({"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":15}}),
        json!({"type":"message_stop"}),
    ]);
    assert_eq!((message.format, message.model.as_deref()), ("anthropic", Some("claude-x")));
    assert_eq!(
        message.parts,
        [
            Part::Thinking("hm".into()),
            Part::Text("Hello".into()),
            Part::ToolCall {
                id: "t1".into(),
                name: "weather".into(),
                arguments: "{\"city\":\"Rome\"}".into()
            },
        ]
    );
    assert_eq!(message.stop.as_deref(), Some("tool_use"));
    let usage = Usage { input: Some(25), cached: Some(5), output: Some(15) };
    assert_eq!(message.usage, usage);
    // First token in the third event, last in the eleventh: 14 tokens in 8 ms.
    assert_eq!((message.ttft_us, message.last_token_us), (Some(3000), Some(11_000)));
    assert_eq!(message.tokens_per_second, Some(1750.0));
}

#[req_test("REQ-REC-003")]
#[test]
fn a_completion_of_openai_with_text_and_two_tools() {
    let chunk = |delta: Value| json!({"object":"chat.completion.chunk","model":"gpt-x","choices":[{"index":0,"delta":delta}]});
    let message = stream(&[
        chunk(json!({"role":"assistant","content":""})),
        chunk(json!({"content":"Hi "})),
        chunk(json!({"content":"there"})),
        chunk(
            json!({"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"a","arguments":""}}]}),
        ),
        chunk(json!({"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]})),
        chunk(
            json!({"tool_calls":[{"index":1,"id":"c2","function":{"name":"b","arguments":"{}"}}]}),
        ),
        chunk(json!({"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]})),
        json!({"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}),
        json!({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}}),
    ]);
    let call = |id: &str, name: &str, arguments: &str| Part::ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    assert_eq!(
        message.parts,
        [Part::Text("Hi there".into()), call("c1", "a", "{\"x\":1}"), call("c2", "b", "{}")]
    );
    assert_eq!(message.usage, Usage { input: Some(9), cached: Some(4), output: Some(7) });
    assert_eq!((message.stop.as_deref(), message.ttft_us), (Some("tool_calls"), Some(2000)));
    assert_eq!(message.tokens_per_second, Some(1200.0));
}

#[req_test("REQ-REC-003")]
#[test]
fn a_response_of_openai() {
    let message = stream(&[
        json!({"type":"response.created","response":{"model":"gpt-y"}}),
        json!({"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"o"}),
        json!({"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"k"}),
        json!({"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":""}}),
        json!({"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}),
        json!({"type":"response.completed","response":{"model":"gpt-y","status":"completed","usage":{"input_tokens":1,"output_tokens":3}}}),
    ]);
    let tool = Part::ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    assert_eq!(message.parts, [Part::Text("ok".into()), tool]);
    assert_eq!((message.stop.as_deref(), message.usage.output), (Some("completed"), Some(3)));
}

#[test]
fn answers_in_one_piece_and_what_is_none() {
    let anthropic = json!({"type":"message","model":"m","content":[{"type":"text","text":"hi"},{"type":"tool_use","id":"i","name":"n","input":{"a":1}}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}});
    let message = of_json(&anthropic, 5).unwrap();
    assert_eq!((message.parts.len(), message.ttft_us), (2, Some(5)));
    let openai = json!({"object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]});
    assert_eq!(of_json(&openai, 5).unwrap().parts, [Part::Text("hi".into())]);
    assert!(of_json(&json!({"hello":"world"}), 0).is_none());
    assert!(of_events(&[]).is_none());
    let event = Event { at: 0, event: "e".into(), data: "no JSON".into(), id: None };
    assert!(of_events(&[event]).is_none());
}
