import { HumanMessage, SystemMessage, type AIMessage } from "@langchain/core/messages";
import { END, MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { ToolNode } from "@langchain/langgraph/prebuilt";
import type { Agent } from "../agent.ts";
import { instructions, question } from "../house.ts";
import { lastState, modelOf, tools } from "./langchain.ts";

/** A graph of its own: a node for the model, one for its tools, whose errors become results. */
export const agent: Agent = async (play) => {
  const model = modelOf(play).bindTools(tools);
  const graph = new StateGraph(MessagesAnnotation)
    .addNode("model", async ({ messages }) => ({
      messages: [await model.invoke([new SystemMessage(instructions), ...messages])],
    }))
    .addNode("tools", new ToolNode(tools))
    .addEdge(START, "model")
    .addConditionalEdges("model", ({ messages }) =>
      (messages.at(-1) as AIMessage).tool_calls?.length ? "tools" : END,
    )
    .addEdge("tools", "model")
    .compile();
  const input = { messages: [new HumanMessage(question)] };
  const { messages } = play.streamed
    ? await lastState(await graph.stream(input, { streamMode: ["messages", "values"] }))
    : await graph.invoke(input);
  return messages.at(-1)?.text ?? "";
};
