import type { Peer } from "../api/types";
import { ms, percent, shown } from "../format";
import { t, word } from "../i18n";
import { peers, useResource } from "../state/resource";
import { NodeLink } from "../ui/node";
import { Badge, Heading, Loaded, Time, type Tone } from "../ui/parts";
import { Table, type ColumnOf } from "../ui/table";

const TONES: Record<string, Tone> = { up: "good", dialling: "warn", down: "bad" };

/** What only a link tells. */
const ifUp = (peer: Peer, text: string) => (peer.state === "up" ? text : "–");

export function PeersPage() {
  const resource = useResource(peers);
  const columns: ColumnOf<Peer>[] = [
    { id: "node", title: t("column.node"), by: (peer) => peer.node_id, cell: (peer) => <NodeLink id={peer.node_id} /> },
    {
      id: "state",
      title: t("column.state"),
      by: (peer) => peer.state,
      cell: (peer) => <Badge tone={TONES[peer.state] ?? "off"}>{word("peer", peer.state)}</Badge>,
    },
    { id: "since", title: t("column.since"), by: (peer) => peer.since, cell: (peer) => <Time at={peer.since} /> },
    { id: "rtt", title: t("column.rtt"), figure: true, by: (peer) => peer.rtt_ms, cell: (peer) => ms(peer.rtt_ms) },
    { id: "loss", title: t("column.loss"), figure: true, by: (peer) => peer.loss, cell: (peer) => percent(peer.loss) },
    {
      id: "address",
      title: t("column.address"),
      by: (peer) => peer.address,
      cell: (peer) => <span class="mono">{peer.address ? shown(peer.address) : "–"}</span>,
    },
    {
      id: "dialled",
      title: t("column.dialled"),
      by: (peer) => peer.dialled,
      cell: (peer) => ifUp(peer, peer.dialled ? t("peers.from_here") : t("peers.from_there")),
    },
    {
      id: "name",
      title: t("column.upstream"),
      by: (peer) => peer.name,
      cell: (peer) => (peer.name ? shown(peer.name) : "–"),
    },
    {
      id: "relay",
      title: t("column.relay"),
      by: (peer) => peer.relay,
      cell: (peer) => ifUp(peer, peer.relay ? t("common.yes") : t("common.no")),
    },
    { id: "groups", title: t("column.groups"), cell: (peer) => peer.groups.map(shown).join(", ") || "–" },
    {
      id: "error",
      title: t("column.last_error"),
      cell: (peer) => <span class="long">{peer.last_error ? shown(peer.last_error) : "–"}</span>,
    },
  ];
  return (
    <>
      <Heading title={t("nav.peers")} />
      <Loaded of={resource}>
        {(list) => (
          <Table
            stack
            label={t("nav.peers")}
            columns={columns}
            rows={list}
            id={(peer) => peer.node_id}
            empty={t("peers.empty")}
          />
        )}
      </Loaded>
    </>
  );
}
