import { Argument, Command as Commander, type Help, type Option } from 'commander';
import type { AnyCommand, Example, Io, Parameter } from './command.ts';
import { Flag, isGiven } from './flags.ts';
import { UsageError } from './usage-error.ts';
import { VERSION } from './version.ts';

const WIDTH = 80;

const INTRODUCTION = `meshcert gives an API gateway the identity of a service mesh.`;

const CLOSING = `
Run "meshcert COMMAND --help" for the flags and examples of a command. As a
kubectl plugin, each command is also "kubectl meshcert COMMAND".`;

/** The commander program. `done` is called with the exit code of the command that ran. */
export function programOf(commands: readonly AnyCommand[], io: Io, done: (code: number) => void): Commander {
  const program = settled(new Commander('meshcert'), io)
    .description(INTRODUCTION)
    .usage('COMMAND [flags]')
    .version(`meshcert ${VERSION}`, '--version', 'Show the version')
    .helpCommand('help [command]', 'Show the help of a command')
    .addHelpText('after', CLOSING);
  for (const command of commands) program.addCommand(subcommandOf(command, io, done));
  return program;
}

function subcommandOf(command: AnyCommand, io: Io, done: (code: number) => void): Commander {
  const { name, summary, description, usage, parameters = [], flags, examples, exitCodes } = command;
  const commander = settled(new Commander(name), io)
    .summary(summary)
    .description(description)
    .addHelpText('after', closing(examples, exitCodes));
  if (usage) commander.usage(usage.join(`\n       meshcert ${name} `));
  for (const parameter of parameters) commander.addArgument(argumentOf(parameter));
  for (const flag of Object.values(flags)) commander.addOption(flag as Option);
  return commander.action(async () => {
    const given = commander.opts<Record<string, unknown>>();
    const values = Object.fromEntries(
      Object.entries(flags).map(([attribute, flag]) => [attribute, given[attribute] ?? (flag as Flag<unknown>).absent]),
    );
    refuseReplaced(command, values, commander.args);
    done(await command.run({ flags: values, args: commander.args }, io));
  });
}

function refuseReplaced(
  { parameters = [], flags }: AnyCommand,
  values: Record<string, unknown>,
  args: readonly string[],
) {
  if (args.length === 0) return;
  for (const { name, replacedBy = [] } of parameters) {
    const other = replacedBy.find((attribute) => isGiven(values, attribute, flags[attribute]));
    if (other !== undefined) throw new UsageError(`${flags[other].shown} cannot be used with a ${name}`);
  }
}

function argumentOf({ name, description, required = false, variadic = false, choices }: Parameter): Argument {
  const word = `${name}${variadic ? '...' : ''}`;
  const argument = new Argument(required ? `<${word}>` : `[${word}]`, description);
  return choices ? argument.choices([...choices]) : argument;
}

/** Shared settings: errors are thrown, output goes to `io`, and help has our layout. */
function settled(commander: Commander, io: Io): Commander {
  return commander
    .optionsGroup('Flags:')
    .commandsGroup('Commands:')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: () => {},
      outputError: () => {},
      getOutHelpWidth: () => WIDTH,
    })
    .configureHelp({ optionDescription, commandUsage, subcommandTerm: (one) => one.name() })
    .helpOption('-h, --help', 'Show this help')
    .showSuggestionAfterError(false);
}

function commandUsage(this: Help, commander: Commander): string {
  const path = commander.parent ? `${commander.parent.name()} ${commander.name()}` : commander.name();
  return `${path} ${commander.usage().replace('[options]', '[flags]')}`;
}

function optionDescription(option: Option): string {
  if (!(option instanceof Flag)) return option.description;
  const { absent, argChoices, shownDefault } = option;
  const isShown = typeof absent === 'string' || (typeof absent === 'number' && shownDefault === undefined);
  const standard = shownDefault ?? (isShown ? String(absent) : undefined);
  const extra = [
    ...(argChoices ? [`${argChoices.length > 1 ? 'one of ' : ''}${argChoices.join(', ')}`] : []),
    ...(standard === undefined ? [] : [`default ${standard}`]),
  ];
  return extra.length === 0 ? option.description : `${option.description} (${extra.join('; ')})`;
}

function closing(examples: readonly Example[], exitCodes: string | undefined): string {
  const shown = examples.map(({ does, line }) => `  # ${does}\n${line.replace(/^/gm, '  ')}`).join('\n\n');
  return `\nExamples:\n${shown}${exitCodes === undefined ? '' : `\n\nExit codes:\n${exitCodes.replace(/^/gm, '  ')}`}`;
}
