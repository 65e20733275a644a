/**
 * The same parts. Hears when one is awaited, and when none is: what a reader has got, and leaves unread, is no work of whoever
 * gives the parts.
 */
export async function* noteAwaited<T>(
  parts: AsyncIterable<T>,
  note: (isAwaited: boolean) => void,
): AsyncGenerator<T> {
  note(true);
  try {
    for await (const part of parts) {
      note(false);
      yield part;
      note(true);
    }
  } finally {
    note(false);
  }
}
