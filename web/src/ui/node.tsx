/** A node's id, which leads to it in the topology. */

import { shown } from "../format";
import { href } from "../router";

export function NodeLink({ id }: { id: string }) {
  return (
    <a class="mono" href={href("topology", { node: id })}>
      {shown(id)}
    </a>
  );
}
