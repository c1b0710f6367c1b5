/** Where nodes stand. A node that has a place keeps it: only new ones look for one. */

import {
  forceCollide,
  forceLink,
  forceManyBody,
  forceSimulation,
  forceX,
  forceY,
  type Simulation,
  type SimulationNodeDatum,
} from "d3-force";

export interface Place {
  x: number;
  y: number;
}

interface Body extends SimulationNodeDatum {
  id: string;
}

/** Steps until all stand still; for a few new ones among many fewer do. */
const STEPS = 260;
const STEPS_NEW = 90;
/** Work between two frames, ms: half of one at 60 Hz. */
const SLICE_MS = 8;

export class Layout {
  private readonly places = new Map<string, Place>();
  private running = 0;

  /** The place of a node, once it has one. */
  place(id: string): Place | undefined {
    return this.places.get(id);
  }

  /** What a person has moved stays where it was put. */
  move(id: string, place: Place): void {
    this.places.set(id, place);
  }

  forget(): void {
    this.places.clear();
  }

  /** Whether each of `ids` has a place. */
  covers(ids: string[]): boolean {
    return ids.every((id) => this.places.has(id));
  }

  /** Finds places for those without one. The first of `ids` is the centre. Calls `done` unless a later call took over. */
  arrange(ids: string[], links: [string, string][], done: () => void): void {
    const simulation = this.simulate(ids, links);
    const steps = this.places.size === 0 ? STEPS : STEPS_NEW;
    const run = (this.running += 1);
    let step = 0;
    const slice = () => {
      if (run !== this.running) return;
      const end = performance.now() + SLICE_MS;
      while (step < steps && performance.now() < end) {
        simulation.tick();
        step += 1;
      }
      if (step < steps) {
        requestAnimationFrame(slice);
        return;
      }
      for (const body of simulation.nodes()) this.places.set(body.id, { x: body.x ?? 0, y: body.y ?? 0 });
      done();
    };
    slice();
  }

  private simulate(ids: string[], links: [string, string][]): Simulation<Body, undefined> {
    const bodies = ids.map((id): Body => {
      const place = this.places.get(id);
      return place ? { id, x: place.x, y: place.y, fx: place.x, fy: place.y } : { id };
    });
    const first = bodies[0];
    if (first && first.fx === undefined) Object.assign(first, { x: 0, y: 0, fx: 0, fy: 0 });
    const byId = new Map(bodies.map((body) => [body.id, body]));
    for (const body of bodies) beside(body, links, byId);
    const linked = new Set(links.flat());
    const steps = this.places.size === 0 ? STEPS : STEPS_NEW;
    return (
      forceSimulation(bodies)
        .stop()
        .alphaDecay(1 - Math.pow(0.001, 1 / steps))
        .force("charge", forceManyBody().strength(-420).distanceMax(900))
        .force(
          "link",
          forceLink<Body, { source: string; target: string }>(links.map(([source, target]) => ({ source, target })))
            .id((body) => body.id)
            .distance(90),
        )
        .force("collide", forceCollide(26))
        // Wide rather than high, as screens are; what has no link is held more, or it would drift away.
        .force(
          "x",
          forceX<Body>(0).strength((body) => (linked.has(body.id) ? 0.03 : 0.16)),
        )
        .force(
          "y",
          forceY<Body>(0).strength((body) => (linked.has(body.id) ? 0.1 : 0.2)),
        )
    );
  }
}

/** Starts a new node near one that it is linked with, so that it need not cross the whole graph. */
function beside(body: Body, links: [string, string][], byId: Map<string, Body>): void {
  if (body.x !== undefined) return;
  for (const [a, b] of links) {
    const other = a === body.id ? byId.get(b) : b === body.id ? byId.get(a) : undefined;
    if (other?.fx != null && other.fy != null) {
      // Spread by id, or several new ones would start at one point.
      const angle = [...body.id].reduce((sum, char) => sum + char.charCodeAt(0), 0);
      body.x = other.fx + 60 * Math.cos(angle);
      body.y = other.fy + 60 * Math.sin(angle);
      return;
    }
  }
}
