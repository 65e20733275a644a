/**
 * Control tokens by family, from the vendors' tokenizers and chat templates. Written apart from the
 * code that escapes them, which goes by shape: it must not be its own witness.
 */
export const controlTokens: Readonly<Record<string, readonly string[]>> = {
  qwen: [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "<think>",
    "</think>",
  ],
  "llama 2": ["<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"],
  "llama 3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
  "llama 4": ["<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>", "<|python_start|>"],
  mistral: [
    ...["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"],
    ...["[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CONTENT]", "[ARGS]"],
    ...["[CALL_ID]", "[THINK]", "[/THINK]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<SPECIAL_20>"],
    ...["[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[control_8]", "<pad>", "<unk>"],
  ],
  "gemma 3": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<unused99>"],
  "gemma 4": ["<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"],
  phi: ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|im_sep|>"],
  deepseek: [
    ...["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
    ...["<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "<｜▁pad▁｜>"],
  ],
  "command r": [
    ...["<BOS_TOKEN>", "<EOP_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"],
    ...["<|SYSTEM_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_RESPONSE|>"],
  ],
  exaone: [
    "[|system|]",
    "[|user|]",
    "[|assistant|]",
    "[|endofturn|]",
    "[|tool|]",
    "[BOS]",
    "[PAD]",
  ],
  glm: ["[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|observation|>", "<arg_key>", "</arg_key>"],
  minimax: [
    ...["]~!b[", "]~b]", "[e~[", "]!p~[", "]!d~[", "]<]image[>[", "]<]end of image[>["],
    ...["<minimax:tool_call>", "</minimax:tool_call>", "<beginning_of_sentence>"],
  ],
  "gpt-oss": ["<|start|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|constrain|>"],
  kimi: [
    ...["<|im_user|>", "<|im_middle|>", "<|tool_calls_section_begin|>", "<|end_of_msg|>"],
    ...["[start_header_id]", "[end_header_id]", "[EOS]", "[EOT]", "[extra_id_0]"],
  ],
  seed: ["<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>", "<[end▁of▁sentence]>"],
  granite: ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"],
  falcon: [">>QUESTION<<", ">>ANSWER<<", ">>SUMMARY<<"],
  internlm: ["<eoh>", "<eoa>", "<TOKENS_UNUSED_1>", "<|interpreter|>"],
};
