"""Chat templates in the manner of well-known models, as far as they differ in what surrounds an answer."""

CHATML = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

QWEN3 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = messages|length - 1 - loop.index0 %}
    {%- if ns.searching and message.role == 'user' %}
        {%- set ns.searching = false %}{%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

R1 = """\
{{- '<s>' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{- '<|User|>' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- '<|Assistant|>' + message.content.split('</think>')[-1] + '<|im_end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{%- endif %}"""

LLAMA31 = """\
{{- '<s>' }}
{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|im_start|>system\\n\\nToday Date: ' + date_string + '\\n\\n' }}
{%- for tool in tools or [] %}{{- (tool | tojson(indent=4)) + '\\n\\n' }}{%- endfor %}
{{- system + '<|im_end|>' }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception('one call at a time') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|im_start|>assistant\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- (call.arguments | tojson) + '}<|im_end|>' }}
    {%- elif message.role in ('tool', 'ipython') %}
        {{- '<|im_start|>ipython\\n\\n' + (message.content | tojson) + '<|im_end|>' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n\\n' + message.content | trim + '<|im_end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n\\n' }}{%- endif %}"""

TEXT_ARGUMENTS = """\
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.content is defined %}{{- m.content }}{%- endif %}
    {%- for call in m.tool_calls or [] %}
        {{- '<tool_call>' + call['function']['name'] + '\\n```json\\n' + call['function']['arguments'] + '\\n```' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""In the manner of DeepSeek: arguments of calls are a text."""

STRICT = """\
{%- for m in messages %}
    {%- if m.role not in ('user', 'assistant') %}{{- raise_exception('Unknown role: ' + m.role) }}{%- endif %}
    {{- '[' + m.role + ']' + m.content + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[assistant]' }}{%- endif %}"""

LLAMA2 = """\
{%- for m in messages %}
    {%- if m.role == 'user' %}{{- '<s>[INST] ' + m.content + ' [/INST]' }}
    {%- else %}{{- ' ' + m.content + ' <|im_end|>' }}{%- endif %}
{%- endfor %}"""

VICUNA = """\
{%- for m in messages %}
    {%- if m.role == 'system' %}{{- m.content | trim + '\\n' }}
    {%- elif m.role == 'user' %}{{- 'USER: ' + m.content | trim + '\\n' }}
    {%- else %}{{- 'ASSISTANT: ' + m.content | trim + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{%- endif %}"""

MISTRAL3 = """\
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{%- set messages = messages[1:] %}
{%- endif %}
{{- '<s>' }}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' }}{%- if loop.last and system is defined %}{{- system + '\\n\\n' }}{%- endif %}
        {{- m.content + '[/INST]' }}
    {%- else %}{{- ' ' + m.content | trim + '<|im_end|>' }}{%- endif %}
{%- endfor %}"""
"""In the manner of Mistral v0.3, which writes the system's turn where the last turn is the user's."""

LAST_SYSTEM = """\
{%- set ns = namespace(system='') %}
{%- for m in messages %}{%- if m.role == 'system' %}{%- set ns.system = m.content %}{%- endif %}{%- endfor %}
{{- '<s>' + ns.system }}
{%- for m in messages %}
    {%- if m.role != 'system' %}{{- '[' + m.role + ']' + m.content + '<|im_end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[assistant]' }}{%- endif %}"""
"""In the manner of DeepSeek-R1, which writes the last of several system's turns."""

EMPTY_BLOCK = """\
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set content = m.content if '</think>' in m.content else '<think></think>' + m.content %}
        {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
    {%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""
"""In the manner of Nemotron 3: generation begins reasoning, and an answer without any has an empty block."""

PHI3 = """\
{%- for m in messages %}{{- '<|' + m.role + '|>\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}"""
"""In the manner of Phi-3, which ends a conversation with the end token of the tokenizer as well."""

CHANNELS = """\
{%- for m in messages %}
    {{- '<|im_start|>' + m.role }}
    {%- if m.tool_calls %}{{- ' to=' + m.tool_calls[0].function.name + '<|im_sep|>' }}
        {{- m.tool_calls[0].function.arguments | tojson }}
    {%- elif m.role == 'assistant' %}
        {%- if m.reasoning_content %}{{- '<|analysis|>' + m.reasoning_content + '<|im_start|>assistant' }}{%- endif %}
        {{- '<|final|>' + m.content }}
    {%- else %}{{- '<|im_sep|>' + m.content }}{%- endif %}{{- '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant' }}{%- endif %}"""
"""In the manner of gpt-oss, where the header of an answer says what follows."""
