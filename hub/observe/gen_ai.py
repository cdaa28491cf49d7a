"""The names in the hub's traces: those of OpenTelemetry's conventions for generative AI, and the hub's own."""

# Operations, the first word in the name of a span.
INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
CHAT = "chat"

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
AGENT_ID = "gen_ai.agent.id"
AGENT_NAME = "gen_ai.agent.name"
CONVERSATION_ID = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FIRST_OUTPUT_SECONDS = "gen_ai.response.time_to_first_chunk"
FINISH_REASONS_LIST = "gen_ai.response.finish_reasons"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"

# Content: these attributes are set only if `otel_content` is on.
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"

# General conventions.
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

# The hub's own names.
RUN_ID = "hubbub.run.id"
PARENT_RUN_ID = "hubbub.run.parent_id"
RUN_ATTEMPT = "hubbub.run.attempt"
QUEUE_SECONDS = "hubbub.run.queue_seconds"
TOOLS_LEFT_OUT = "hubbub.run.tools_left_out"
