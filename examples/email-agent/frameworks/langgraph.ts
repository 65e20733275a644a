import { HumanMessage, SystemMessage, type AIMessage } from "@langchain/core/messages";
import { END, MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { ToolNode } from "@langchain/langgraph/prebuilt";
import type { Agent } from "../src/desk.ts";
import { modelOf, toolsOf } from "./langchain.ts";

/** A graph of LangGraph: a node for the model, and one for its tools. */
export const agent: Agent = async (work) => {
  const { model, system, question, desk, mostTurns } = work;
  const tools = toolsOf(work);
  const chatModel = modelOf(work).bindTools(tools);
  const graph = new StateGraph(MessagesAnnotation)
    .addNode("model", async ({ messages }) => ({
      messages: [await chatModel.invoke([new SystemMessage(system), ...messages])],
    }))
    .addNode("tools", new ToolNode(tools))
    .addEdge(START, "model")
    .addConditionalEdges("model", ({ messages }) =>
      (messages.at(-1) as AIMessage).tool_calls?.length ? "tools" : END,
    )
    .addConditionalEdges("tools", () => (desk.ended || desk.turns >= mostTurns ? END : "model"))
    .compile();
  await graph.invoke(
    { messages: [new HumanMessage(question)] },
    { signal: model.signal, recursionLimit: 2 * mostTurns + 2 },
  );
};
